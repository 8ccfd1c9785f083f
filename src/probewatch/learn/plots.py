"""The pictures of a report, each an SVG text that depends on nothing but the figures in it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

ATTACK = "#c2410c"
BENIGN = "#2f6690"
INK = "#1c2733"
FAINT = "#8894a1"
GRID = "#e6eaee"
RIVALS = ("#4d7c5f", "#8a6d9e", "#b08a3c", "#5b8c98", "#a06070")
"""A colour for each rival; all lighter than ours, so that ours stands out."""
WIDE, HIGH = 5.6, 3.7
"""Size in inches; the page scales it."""
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: sharp, small, and in the page's own font
    "svg.hashsalt": "probewatch",  # ids of clip paths are random without it
    "font.family": "DejaVu Sans",  # shipped with matplotlib, so text is measured alike everywhere
    "font.size": 10.0,
    "text.usetex": False,
    "text.color": INK,
    "axes.facecolor": "white",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.0,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "grid.linestyle": "-",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.4g} %")


class _Drawing:
    """One figure with one pair of axes; ``svg`` is filled in when the block of :func:`_drawing` ends."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDE, HIGH), layout="constrained")
        self.axes: Axes = self.figure.subplots()
        self.svg = ""


@contextmanager
def _drawing(x: str, y: str) -> Iterator[_Drawing]:
    with matplotlib.rc_context(STYLE):
        drawing = _Drawing()
        drawing.axes.set_xlabel(x)
        drawing.axes.set_ylabel(y)
        yield drawing
        file = io.StringIO()
        drawing.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    drawing.svg = file.getvalue().replace("'DejaVu Sans'", FONTS)


def loss_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss by epoch, the best epoch marked.

    Args:
        history: a mapping an epoch, with ``epoch``, ``train_loss`` and ``valid_loss`` (finite, or None).
    """
    epoch = np.array([row["epoch"] for row in history], np.float64)
    train, valid = (
        np.array([np.nan if row.get(name) is None else row[name] for row in history], np.float64)
        for name in ("train_loss", "valid_loss")
    )
    with _drawing("epoch", "loss") as drawing:
        axes = drawing.axes
        axes.plot(epoch, train, color=BENIGN, label="training")
        axes.plot(epoch, valid, color=ATTACK, label="validation")
        if np.any(np.isfinite(valid)):
            best = int(np.nanargmin(valid))
            axes.axvline(epoch[best], color=FAINT, linestyle=":", linewidth=1.2)
            axes.plot(epoch[best], valid[best], "o", color=ATTACK, label=f"best: epoch {epoch[best]:.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.legend()
    return drawing.svg


def roc(label: NDArray[Any], scores: Mapping[str, NDArray[Any]], threshold: float) -> str:
    """True-positive rate over the false-positive rate, which is what costs money, on a logarithmic axis.

    Args:
        label: (S,) 0 and 1, both present.
        scores: name to (S,) scores; the first is ours, the others are rivals.
        threshold: of ours; marked.
    """
    benign = int(np.sum(label == 0))
    lowest = 10 ** np.floor(np.log10(1 / max(benign, 10)))
    with _drawing("false-positive rate (benign sessions alerted)", "true-positive rate") as drawing:
        axes = drawing.axes
        axes.set_xscale("log")
        chance = np.geomspace(lowest, 1, 50)
        axes.plot(chance, chance, color=FAINT, linewidth=1, linestyle=":", label="chance")
        for name, score, colour, ours in _curves(scores):
            fpr, tpr, _ = roc_curve(label, score)
            axes.plot(
                np.maximum(fpr, lowest),
                tpr,
                drawstyle="steps-post",
                label=name,
                color=colour,
                **_weight(ours),
            )
        ours_score = next(iter(scores.values()))
        alert = ours_score >= threshold
        point = max(float(np.mean(alert[label == 0])), lowest), float(np.mean(alert[label == 1]))
        axes.plot(*point, "o", color=ATTACK, markeredgecolor="white", markersize=8, zorder=5, label="threshold")
        axes.set_xlim(lowest, 1)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(_PERCENT)
        axes.yaxis.set_major_formatter(_PERCENT)
        _legend_above(drawing)
    return drawing.svg


def precision_recall(label: NDArray[Any], scores: Mapping[str, NDArray[Any]], threshold: float) -> str:
    """Precision over recall; arguments as for :func:`roc`."""
    with _drawing("recall (attacks alerted)", "precision (alerts that are attacks)") as drawing:
        axes = drawing.axes
        share = float(np.mean(label == 1))
        axes.axhline(share, color=FAINT, linewidth=1, linestyle=":", label="chance")
        for name, score, colour, ours in _curves(scores):
            precision, recall, _ = precision_recall_curve(label, score, drop_intermediate=True)
            axes.plot(recall, precision, drawstyle="steps-post", label=name, color=colour, **_weight(ours))
        alert = next(iter(scores.values())) >= threshold
        if np.any(alert):
            point = float(np.mean(alert[label == 1])), float(np.mean(label[alert] == 1))
            axes.plot(*point, "o", color=ATTACK, markeredgecolor="white", markersize=8, zorder=5, label="threshold")
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(_PERCENT)
        axes.yaxis.set_major_formatter(_PERCENT)
        _legend_above(drawing)
    return drawing.svg


def confusion_matrix(table: Sequence[Sequence[int]]) -> str:
    """Counts and shares of each class; ``table`` is [[TN, FP], [FN, TP]]."""
    counts = np.asarray(table, np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    words = (("rightly silent", "false alarms"), ("missed", "caught"))
    with _drawing("the detector said", "the session was") as drawing:
        axes = drawing.axes
        axes.grid(visible=False)
        for row in range(2):
            for column in range(2):
                right = row == column
                axes.fill_between(
                    [column - 0.48, column + 0.48],
                    row - 0.47,
                    row + 0.47,
                    color=BENIGN if right else ATTACK,
                    alpha=0.1 + 0.9 * float(shares[row, column]),
                    linewidth=0,
                )
                ink = "white" if shares[row, column] > 0.72 else INK
                axes.text(
                    column,
                    row - 0.12,
                    f"{counts[row, column]:,.0f}",
                    ha="center",
                    va="center",
                    color=ink,
                    size=17,
                )
                text = f"{100 * shares[row, column]:.1f} % {words[row][column]}" if totals[row, 0] else "none tested"
                axes.text(column, row + 0.2, text, ha="center", va="center", color=ink, size=9)
        axes.set_xticks([0, 1], ["benign", "attack"])
        axes.set_yticks([0, 1], ["benign", "attack"])
        axes.tick_params(length=0)
        axes.set_xlim(-0.5, 1.5)
        axes.set_ylim(1.5, -0.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return drawing.svg


def score_distributions(label: NDArray[Any], score: NDArray[Any], threshold: float) -> str:
    """Share of each class's sessions by score, with the threshold."""
    low, high = min(0.0, float(score.min())), max(1.0, float(score.max()))
    edges = np.linspace(low, high, 31)
    with _drawing("score of the session", "share of the class") as drawing:
        axes = drawing.axes
        for code, name, colour in ((0, "benign", BENIGN), (1, "attack", ATTACK)):
            chosen = score[label == code]
            if len(chosen):
                share = np.histogram(chosen, edges)[0] / len(chosen)
                axes.stairs(share, edges, fill=True, color=colour, alpha=0.28, linewidth=0)
                axes.stairs(share, edges, color=colour, linewidth=1.8, label=f"{name} ({len(chosen):,})")
        axes.axvline(min(threshold, high), color=INK, linestyle="--", linewidth=1.3, label=f"threshold {threshold:.3g}")
        axes.set_xlim(low, high)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.legend()
    return drawing.svg


def calibration(predicted: Sequence[float], observed: Sequence[float]) -> str:
    """Share of attacks among sessions of like score; on the diagonal, scores are probabilities."""
    with _drawing("score (mean of a tenth of the sessions)", "share of attacks among them") as drawing:
        axes = drawing.axes
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="perfect")
        axes.plot(predicted, observed, "o-", color=ATTACK, markersize=5, label="Probewatch")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.legend(loc="upper left")
    return drawing.svg


def events_until_alert(label: NDArray[Any], first_alert: NDArray[Any]) -> str:
    """Share of all attacks, and of all benign sessions, that had alerted by each event.

    Args:
        label: (S,) 0 and 1.
        first_alert: (S,) event number from 1, 0 = never.
    """
    last = max(10, int(first_alert.max()))
    with _drawing("events of the session so far", "share alerted") as drawing:
        axes = drawing.axes
        for code, name, colour in ((1, "attacks", ATTACK), (0, "benign (false alarms)", BENIGN)):
            alerts = first_alert[label == code]
            if not len(alerts):
                continue
            events, counts = np.unique(alerts[alerts > 0], return_counts=True)
            share = np.cumsum(counts) / len(alerts)
            x = np.concatenate([[1], events, [last]])
            y = np.concatenate([[0], share, share[-1:] if len(share) else [0]])
            axes.plot(x, y, drawstyle="steps-post", color=colour, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(1, last)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.legend(loc="upper left")
    return drawing.svg


def _curves(scores: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any], str, bool]]:
    """Rivals first, so that ours is drawn over them."""
    ours, *rivals = scores.items()
    for index, (name, score) in enumerate(rivals):
        yield name, score, RIVALS[index % len(RIVALS)], False
    yield *ours, ATTACK, True


def _weight(ours: bool) -> dict[str, Any]:
    return {"linewidth": 2.4, "zorder": 4} if ours else {"linewidth": 1.3, "zorder": 3}


def _legend_above(drawing: _Drawing) -> None:
    handles, labels = drawing.axes.get_legend_handles_labels()
    front = [len(handles) - 2, len(handles) - 1] if labels[-1] == "threshold" else [len(handles) - 1]
    order = front + [index for index in range(len(handles)) if index not in front]
    legend = drawing.figure.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="outside upper left",
        ncols=3 if len(order) > 3 else len(order),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
