"""The verb that attacks one's own model: parse, call, print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probewatch.errors import ConfigError
from probewatch.serve.options import Json, Quiet

if TYPE_CHECKING:
    from rich.table import Table

    from probewatch.corpus.recipe import Recipe
    from probewatch.corpus.run import Subject


def corpus(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the log, its labels and the manifest; a corpus there is replaced."
        ),
    ],
    demo: Annotated[
        str | None, typer.Option(metavar="digits|cancer|wine", help="Attack a small model on scikit-learn's data.")
    ] = None,
    drawn: Annotated[
        int | None,
        typer.Option(metavar="N", help="Attack N models of data drawn at random: a log of many kinds to train on."),
    ] = None,
    benchmark: Annotated[
        bool,
        typer.Option("--benchmark", help="Build the fixed benchmark: parts to train and to test on, 7,500 sessions."),
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="A callable to probabilities, or an estimator.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="An endpoint that takes and gives JSON.")] = None,
    train: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the model was trained on: CSV or Parquet.")
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Records of the same kind that it was not trained on.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that the model predicts.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the log, if not MODULE.NAME or model.")] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="TOML", help="Settings of the mix.")] = None,
    sessions: Annotated[int | None, typer.Option(metavar="N", help="Sessions in all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write events.parquet instead of events.jsonl.gz.")
    ] = False,
    max_queries: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop before the model is asked more often.")
    ] = None,
    rate: Annotated[float, typer.Option(metavar="N", help="Queries a second at most, of an endpoint.")] = 200.0,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of one request, to the last byte of its answer.")
    ] = 30.0,
    body: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help='A request: "$rows" becomes a list of queries as [41, "nurse"], "$records" of queries as'
            ' {"age": 41, "job": "nurse"}; "$row" and "$record" send one a request.',
        ),
    ] = '{"instances": "$rows"}',
    response_path: Annotated[
        str, typer.Option(metavar="PATH", help="Way to the probabilities, as results.*.scores (* = each query).")
    ] = "predictions",
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Sent with each request; written nowhere.")
    ] = None,
    owned: Annotated[
        bool, typer.Option("--i-own-this-endpoint", help="Allow an endpoint that is not on this machine.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack and use your own model, and write a labelled log to train or test a detector on."""
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise ConfigError("corpora need scikit-learn, which this host lacks; pip install 'probewatch[corpus]'.")
    from probewatch.corpus.generate import make_corpus
    from probewatch.serve.screen import Screen

    screen = Screen(as_json=as_json, quiet=quiet)
    if benchmark:
        given = (demo, drawn, model, endpoint, train, holdout, label, name, recipe, max_queries)
        if parquet or any(one is not None for one in given):
            raise ConfigError("--benchmark is fixed but for --sessions and --seed; leave the other options out.")
        _benchmark(out, {"sessions": sessions, "seed": seed}, screen)
        return
    chosen = _recipe(recipe, {"sessions": sessions, "seed": seed})
    if sum(one is not None for one in (demo, drawn, model, endpoint)) != 1:
        raise ConfigError("expected one of --demo, --drawn, --model, --endpoint and --benchmark.")
    if demo is not None:
        from probewatch.corpus.demos import demo_subject

        subjects = [demo_subject(demo, chosen, max_queries or chosen.budget)]
    elif drawn is not None:
        from probewatch.corpus.demos import drawn_subjects

        subjects = drawn_subjects(drawn, chosen, max_queries or chosen.budget)
    else:
        if train is None or holdout is None or label is None:
            raise ConfigError("--model and --endpoint need --train FILE, --holdout FILE and --label COLUMN.")
        http = {
            "body": body, "path": response_path, "headers": header or [], "rate": rate, "timeout": timeout,
            "owned": owned,
        }  # fmt: skip
        files = (train, holdout, label)
        subjects = [_own_subject(files, model, endpoint, name, http, max_queries, chosen)]
        if endpoint is not None:
            screen.note(_how_long(chosen, subjects[0], rate))
    with screen.progress("corpus") as bar:
        manifest = make_corpus(
            subjects,
            chosen,
            out,
            parquet=parquet,
            salt="" if demo or drawn else subjects[0].target.name,
            note=screen.note,
            told=lambda what, done, total: bar(done, total, what),
        )
    _show(manifest, out, screen)


def _benchmark(out: Path, changes: Mapping[str, int | None], screen: Any) -> None:
    from probewatch.corpus.benchmark import make_benchmark

    given = {name: value for name, value in changes.items() if value is not None}
    with screen.progress("benchmark") as bar:
        manifest = make_benchmark(out, **given, told=lambda what, done, total: bar(done, total, what), note=screen.note)
    for name, part in manifest["parts"].items():
        counts, gives = part["sessions"], part["give_aways"]
        screen.line(
            f"{name}: {counts['all']:,} sessions of {counts['clients']:,} clients, {counts['queries']:,} queries to"
            f" {len(part['targets'])} models"
        )
        screen.table(_attack_table(part.pop("manifest")["attacks"]))
        _show_give_aways(gives, screen)
    screen.line(f"Benchmark: {out}   Rules: {out / 'manifest.json'}")
    screen.json(manifest)


def _recipe(path: Path | None, changes: Mapping[str, Any]) -> Recipe:
    from probewatch.corpus.recipe import Recipe, read_recipe

    chosen = read_recipe(path, Recipe()) if path else Recipe()
    return chosen.with_changes({name: value for name, value in changes.items() if value is not None})


def _own_subject(
    files: tuple[Path, Path, str],
    model: str | None,
    endpoint: str | None,
    name: str | None,
    http: Mapping[str, Any],
    max_queries: int | None,
    recipe: Recipe,
) -> Subject:
    """The user's model, with the records of their files."""
    import dataclasses

    import numpy as np

    from probewatch.corpus.pools import read_table, split_pools
    from probewatch.corpus.run import Subject
    from probewatch.corpus.target import Target, load_predict

    table = read_table(*files)
    classes = [str(value) for value in table.classes]
    pools = split_pools(table.train, table.others, recipe.pools, np.random.default_rng([recipe.seed, 5]))
    described: dict[str, Any] = {"data": [str(files[0].name), str(files[1].name)], "label": files[2]}
    if endpoint is not None:
        from probewatch.corpus.endpoint import Endpoint, Form, Limits, hidden

        form = Form(_json(http["body"]), http["path"], _headers(http["headers"]))
        limits = Limits(per_second=http["rate"], timeout_s=http["timeout"])
        predict: Any = Endpoint(
            endpoint, table.columns, classes, spelled=table.spelled, form=form, limits=limits, owned=http["owned"]
        )
        described |= {"endpoint": predict.shown, "body": hidden(form.body), "response_path": form.path,
                      "queries_per_second": limits.per_second}  # fmt: skip
    else:
        predict = table.decoding(load_predict(str(model), classes, table.columns))
        described |= {"model": model}
    records = len(pools.members) + len(pools.holdout)
    budget = max_queries or recipe.budget + records
    described |= {"query_budget": budget, "columns": list(table.columns), "answers_rounded_to": 6}
    named = name or (model.replace(":", ".") if model else "model")
    target = Target(named, predict, classes=len(classes), budget=budget)
    subject = Subject.of(target, pools, table.classes, recipe.seed, described)
    return dataclasses.replace(subject, logged=table.logged)


def _how_long(recipe: Recipe, subject: Subject, rate: float) -> str:
    from probewatch.corpus.plan import plan_runs

    owners = len(subject.pools.members) + len(subject.pools.holdout)  # are asked too, for the profile
    queries = owners + sum(sum(run.lengths) for run in plan_runs(recipe, 1))
    return (
        f"About {queries:,} queries at {rate:g} a second at most take {queries / rate / 60:,.0f} minutes or more;"
        " a stopped run goes on with the same command."
    )


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f'--body is no JSON: {error}; as {{"instances": "$rows"}}.') from error


def _headers(lines: Sequence[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or "\n" in line or "\r" in line:
            raise ConfigError(f"--header is {name!r} without a value, expected NAME:VALUE.")
        found[name.strip()] = value.strip()
    return found


def _show(manifest: Mapping[str, Any], out: Path, screen: Any) -> None:
    counts, gives = manifest["sessions"], manifest["give_aways"]
    kinds = ", ".join(f"{count:,} {name}" for name, count in counts["by_attack"].items())
    screen.line(f"{counts['all']:,} sessions of {counts['clients']:,} clients, {counts['queries']:,} queries: {kinds}")
    screen.table(_attack_table(manifest["attacks"]))
    _show_give_aways(gives, screen)
    for name, one in manifest["targets"].items():
        right, leak = one["accuracy"], one["leak"]
        low, high = leak["interval"]
        screen.line(
            f"{name}: right on {right['train']:.0%} of its training records and {right['holdout']:.0%} of others;"
            f" {leak['reading']} (ROC AUC {leak['roc_auc']:.2f}, {low:.2f} to {high:.2f})"
        )
        told = one.get("endpoint")
        if told and told["retries"]:
            screen.note(f"{name}: {told['retries']:,} failed requests, as: {told['trouble'][0]}")
    screen.line(f"Log: {out}   Train on it: probewatch train {out}/events.* --labels {out}/labels.csv "
                f"--allow {out}/allow.txt --targets {out}/targets --out bundle")  # fmt: skip
    screen.line(f"What the owner knows of it: {out}/targets   Keep it: probewatch profile --targets {out}/targets "
                "--out profiles")  # fmt: skip
    screen.json(manifest)


def _show_give_aways(gives: Mapping[str, Any], screen: Any) -> None:
    from probewatch.corpus.giveaways import GOAL, tells

    if gives["roc_auc"] is not None:
        verdict = "holds" if gives["holds"] else "does not hold"
        screen.line(
            f"Length, rate, start and off-grid inputs tell attacks by ROC AUC {gives['roc_auc']:.2f}"
            f" (from {1.0 - GOAL:.2f} to {GOAL:.2f}: {verdict})"
        )
        if not gives["holds"]:
            screen.note("The corpus gives attacks away by their form; a detector may learn that, and not the attack.")
        above = [f"{name} ({auc:.2f})" for name, auc in gives["by_target"].items() if tells(auc)]
        if above and len(gives["by_target"]) > 1:
            screen.note(f"By their form alone attacks can be told on {', '.join(above)}.")


def _attack_table(attacks: Mapping[str, Any]) -> Table:
    from rich.table import Table

    from probewatch.serve.show import figure

    table = Table(title="What the membership attacks found out, against the truth", title_justify="left")
    table.add_column("attack", no_wrap=True)  # other heads wrap instead
    for head in ("runs", "guesses", "members", "ROC AUC", "TPR at 1 % FPR"):
        table.add_column(head, justify="right")
    for name, row in attacks.items():
        table.add_row(
            name, f"{row['runs']:,}", f"{row['guesses']:,}", f"{row['members']:,}", figure(row["roc_auc"]),
            figure(row["tpr_at_fpr_0.01"]),
        )  # fmt: skip
    return table
