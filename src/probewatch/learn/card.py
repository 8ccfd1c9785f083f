"""The model card: what a bundle is, what it was tested on and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probewatch.data.wording import counted
from probewatch.learn.presets import Config
from probewatch.learn.views import describe_view


def describe_network(config: Config) -> str:
    """One network in words.

    >>> describe_network(Config(hidden=8, features=("log_gap", "log_odds")))
    'an LSTM of 1 layer of 8 units that reads 2 features, with dropout 0.5'
    """
    both = " in each direction" if config.bidirectional else ""
    return (
        f"an LSTM of {counted(config.layers, 'layer')} of {counted(config.hidden, 'unit')}{both}"
        f" that reads {counted(len(config.features), 'feature')}, with dropout {config.dropout:g}"
    )


def write_card(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The bundle's README.md, in the form of a Hugging Face model card."""
    data = manifest["data"]
    config = manifest["config"]
    rows = [
        ("test sessions", str(metrics["n"])),
        ("ROC AUC", _figure(metrics, "roc_auc")),
        ("average precision", _figure(metrics, "average_precision")),
        ("TPR at 1 % FPR", _figure(metrics, "tpr_at_fpr_0.01")),
        ("TPR at the threshold", _figure(metrics, "tpr_at_threshold")),
        ("FPR at the threshold", _figure(metrics, "fpr_at_threshold")),
        ("its budget", f"{metrics['max_fpr']:.4g}"),
        ("FPR out of fold", _share(metrics["out_of_fold"]["fpr"], metrics["out_of_fold"]["interval"])),
        ("events until the alert, median", _number((metrics.get("delay") or {}).get("median"))),
    ]
    rows += [(f"ROC AUC of {name}", _number(one["roc_auc"])) for name, one in (metrics.get("rivals") or {}).items()]
    width = max(len(name) for name, _ in rows)
    table = "\n".join(f"| {name:<{width}} | {value:>24} |" for name, value in rows)
    streams = (
        "It scores event by event and in batch."
        if manifest["streams"]
        else ("It reads a session from both ends: it scores finished sessions and **cannot stream**.")
    )
    views = _views(metrics.get("views") or {})
    made = (
        f"{counted(data['train'], 'session')} trained it, {data['valid']:,} validated it, {data['test']:,} tested it "
        f"once (split: {config['split']}, seed {config['split_seed']}); {data['attack_share']:.0%} of the labelled "
        f"sessions are attacks. Left out: {counted(data['allowed'], 'session')} of allow-listed clients, and"
        f" {data['other']:,} of attacks on something else than membership. It reads "
        f"{counted(len(manifest['features']), 'feature')} into {counted(config['folds'], 'network')}:"
        f" {manifest['network']}{_trees(config)}."
    )
    return f"""---
library_name: probewatch
tags:
- membership-inference
- anomaly-detection
- lstm
- onnx
license: apache-2.0
---

# A Probewatch detector

It reads the query log of a prediction API and gives every session a score from 0 to 1: how much it looks like
membership inference (MITRE ATLAS AML.T0024.000). {streams}

## How it was made

{made}

## What the test showed

| {"figure":<{width}} | {"value (95 % interval)":>24} |
|{"-" * (width + 2)}|{"-" * 25}:|
{table}

{views}It alerts at a score of {manifest["threshold"]:.4f} and above, on the {manifest["decision"]} score of a session.
The interval of the rate out of fold, on {counted(metrics["out_of_fold"]["benign"], "benign session")} by networks that
did not learn from them, takes sessions for independent; that of the test resamples its clients, or where a figure
is 0 or 1 tells what so many clients can show.

## What it is not

It detects *probing*, not proven leakage. Internal jobs that rescore training customers look the same and belong on
the allow-list. The figures hold for traffic like the log it was tested on; other models, attacks and benign uses
can be much harder. Test it on your own log with `probewatch evaluate`.

## Use

```
probewatch score THIS_FOLDER queries.jsonl.gz --profiles PROFILES --out verdicts.jsonl
```

PROFILES is the folder that `probewatch profile` wrote; without profiles leave `--profiles` out.
"""


def _trees(config: Mapping[str, Any]) -> str:
    if not config["trees"] or config["bidirectional"]:
        return ""
    pretrained = (
        f". Trees that come with the package, grown on drawn data, weigh {config['pretrained']:g} beside all that, and"
        f" {config['pretrained_abroad']:g} on another model"
        if config["pretrained"] or config["pretrained_abroad"]
        else ""
    )
    enough = f", and count up to log-odds of {config['enough']:g}" if config["enough"] else ""
    return (
        "; and into boosted trees of every query's features. Trees that see only what a query has to do with training"
        f" records weigh {config['evidence']:g} on a model that training saw and {config['evidence_abroad']:g} on"
        f" another{enough}. The other trees have {config['habits']:g} of the rest, and {config['habits_abroad']:g} on"
        f" another or without a profile; the networks have what is left{pretrained}"
    )


def _views(views: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of what the detector does where a log or its reader knows less; empty where that is all."""
    if len(views) < 2:
        return ""
    figures = ("roc_auc", "tpr_at_threshold", "fpr_at_threshold")
    width = max(len(describe_view(name)) for name in views)
    lines = [f"| {'the same sessions as':<{width}} | ROC AUC | TPR there | FPR there |"]
    lines += [f"|{'-' * (width + 2)}|--------:|----------:|----------:|"]
    for name, one in views.items():
        auc, tpr, fpr = (_share(one.get(figure), None) for figure in figures)
        lines.append(f"| {describe_view(name):<{width}} | {auc:>7} | {tpr:>9} | {fpr:>9} |")
    return "One detector serves poorer logs too, at the same threshold:\n\n" + "\n".join(lines) + "\n\n"


def _number(value: Any) -> str:
    return "never" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def _figure(metrics: Mapping[str, Any], name: str) -> str:
    value = metrics.get(name)
    if value is None:
        return "too few benign sessions" if name.startswith("tpr_at_fpr") else "none"
    return _share(value, (metrics.get("intervals") or {}).get(name))


def _share(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "none"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
