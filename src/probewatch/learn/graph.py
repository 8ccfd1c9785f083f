"""Trained networks and their scaler -> one ONNX graph, built node by node.

The torch exporter fails on packed LSTMs (pytorch/pytorch#49936), and the graph is small: scaling and
masks, the stacked LSTMs of each member, a linear layer over every step, the members' mean, an affine
calibration; beside them trees, where there are any. Weights come in torch's gate order (i, f, g, o) and leave in
ONNX's (i, o, f, g).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from probewatch.data.columns import FAMILIAR, RISING
from probewatch.learn.dataset import Scaler
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.trees import LIFE, START, Trees, together

OPSET = 17
TREES = 3  # of the operators for trees, which have a number of their own
IR = 8


@dataclass(frozen=True)
class Grove:
    """The trees beside the networks, and how much the evidence among them counts.

    Attributes:
        habits: trees of every feature.
        evidence: trees of what a query has to do with training records, if anything tells it.
        share: weight of the evidence on a model that training saw; networks and habits have the rest.
        share_abroad: the same on a model that training never saw.
        of_habits: weight of the habits beside the networks, on a model that training saw.
        of_habits_abroad: the same on another, or where nothing tells the evidence.
        enough: log-odds beyond which more evidence counts for nothing; 0 for no end.
        pretrained: trees of every feature that were grown on other data (see :mod:`probewatch.learn.pretrained`).
        of_pretrained: their weight on a model that training saw; all others have the rest.
        of_pretrained_abroad: the same on a model that training never saw.
    """

    habits: Trees
    evidence: Trees | None
    share: float
    share_abroad: float
    of_habits: float
    of_habits_abroad: float
    enough: float = 0.0
    pretrained: Trees | None = None
    of_pretrained: float = 0.0
    of_pretrained_abroad: float = 0.0

    @property
    def smoothed(self) -> list[Trees]:
        """The trees whose scores are smoothed along a session, each with a number in the state."""
        return [self.habits, *([] if self.pretrained is None else [self.pretrained])]


_ML = "ai.onnx.ml"


class _Builder:
    """Collects nodes and constants; each call adds one node and gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, count: int = 1, **attributes: Any) -> str:
        name = output or f"n{len(self.nodes)}"
        outputs = [name] + [f"{name}_{index}" for index in range(1, count)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return name


def build_graph(
    models: Sequence[LSTMClassifier],
    scaler: Scaler,
    features: Sequence[str],
    calibration: tuple[float, float] = (1.0, 0.0),
    shifts: Mapping[str, float] | None = None,
    grove: Grove | None = None,
) -> bytes:
    """The graph ``events (B, T, F), lengths (B,), state (B, K) -> logits (B, T), state (B, K)``.

    Args:
        models: members of the same shape, whose logits are averaged.
        scaler: of the features; NaN marks a missing one.
        features: F names, kept in the graph so that another order is refused.
        calibration: slope and intercept applied to the averaged logit.
        shifts: by feature, what is added to the calibrated logit of a step that lacks it.
        grove: trees whose log-odds are averaged with those of the networks; not beside a bidirectional model.

    Returns:
        the serialised graph. A bidirectional model has no score before the end, so all T logits of a
        sequence are its last, and K is 0.
    """
    build = _Builder()
    hidden, layers = models[0].lstm.hidden_size, models[0].lstm.num_layers
    carried = 0 if models[0].bidirectional else 2 * layers * len(models)  # final h and c of each layer
    width = carried * hidden
    steps_first = _scaled_input(build, scaler)  # (T, B, F + G)
    state = smooth = "state"
    smooths = len(grove.smoothed) if grove else 0  # numbers that the smoothing of their scores carries
    if smooths:
        state = build.add("Split", "state", build.constant([width, smooths], np.int64), axis=1, count=2)
        smooth = f"{state}_1"
    states = _split_state(build, state, carried, hidden)
    slope, intercept = calibration
    logits, finals = [], []
    for number, model in enumerate(models):
        own = states[2 * layers * number : 2 * layers * (number + 1)]
        states_of_steps, last = _member(build, model, steps_first, own)
        # the members' mean and the calibration are folded into the linear layers
        weight = model.linear.weight.detach().numpy().T.astype(np.float64) * slope / len(models)
        logits.append(build.add("MatMul", states_of_steps, build.constant(weight)))  # (T, 1, B, 1), or (T, B, 1)
        finals += last
    skips = [model.skip.weight.detach().numpy().T for model in models if model.skip is not None]  # (F + G, 1) each
    if skips:
        straight = np.sum(skips, axis=0, dtype=np.float64) * slope / len(models)
        direct = build.add("MatMul", steps_first, build.constant(straight))  # (T, B, 1)
        one = 2 if models[0].bidirectional else 1
        logits.append(direct if one == 2 else build.add("Unsqueeze", direct, build.constant([1], np.int64)))
    total = logits[0] if len(logits) == 1 else build.add("Sum", *logits)
    bias = np.mean([float(model.linear.bias.detach()[0]) for model in models]) * slope + intercept
    shifted = build.add("Add", total, build.constant(bias))
    flat = build.add("Squeeze", shifted, build.constant([2] if models[0].bidirectional else [1, 3], np.int64))
    score = build.add("Transpose", flat, perm=[1, 0])  # (B, T)
    if grove:
        score, smooth = _with_trees(build, score, grove, features, calibration, smooth)
    if shifts and any(shifts.values()):
        added = [[shifts.get(name, 0.0)] for name in features]
        marks = build.add("Cast", build.add("IsNaN", "events"), to=TensorProto.FLOAT)
        lacking = build.add("Squeeze", build.add("MatMul", marks, build.constant(added)), build.constant([2], np.int64))
        score = build.add("Add", score, lacking)
    build.add("Identity", score, output="logits")
    _join_state(build, finals, width, smooth if grove else "")
    width += smooths
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        build.nodes,
        "probewatch",
        [
            helper.make_tensor_value_info("events", kind, ["B", "T", len(features)]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
            helper.make_tensor_value_info("state", kind, ["B", width]),
        ],
        [
            helper.make_tensor_value_info("logits", kind, ["B", "T"]),
            helper.make_tensor_value_info("new_state", kind, ["B", width]),
        ],
        build.constants,
    )
    operators = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(_ML, TREES)] if grove else [])]
    model_proto = helper.make_model(graph, opset_imports=operators, ir_version=IR, producer_name="probewatch")
    helper.set_model_props(model_proto, {"features": json.dumps(list(features)), "state": str(width)})
    onnx.checker.check_model(model_proto, full_check=True)
    return bytes(model_proto.SerializeToString(deterministic=True))


def _scaled_input(build: _Builder, scaler: Scaler) -> str:
    """The same numbers as ``Scaler.transform`` to 1e-6, steps first; no masks where nothing may be missing."""
    centred = build.add("Sub", "events", build.constant(scaler.mean))
    scaled = build.add("Mul", centred, build.constant(1.0 / scaler.deviation))
    if scaler.limit > 0:
        scaled = build.add("Clip", scaled, build.constant(-scaler.limit), build.constant(scaler.limit))
    if scaler.flags.shape[1]:
        missing = build.add("IsNaN", "events")
        filled = build.add("Where", missing, build.constant(0.0), scaled)
        marks = build.add("Cast", missing, to=TensorProto.FLOAT)
        scaled = build.add("Concat", filled, build.add("MatMul", marks, build.constant(scaler.flags)), axis=2)
    return build.add("Transpose", scaled, perm=[1, 0, 2])


def _split_state(build: _Builder, state: str, carried: int, hidden: int) -> list[str]:
    """The (B, carried · hidden) state as the (1, B, H) states of each member and layer, h before c."""
    if not carried:
        return []
    parts = build.add("Reshape", state, build.constant([0, carried, hidden], np.int64))
    first = build.add("Split", build.add("Transpose", parts, perm=[1, 0, 2]), axis=0, count=carried)
    return [first, *(f"{first}_{index}" for index in range(1, carried))]


def _join_state(build: _Builder, finals: list[str], width: int, smooth: str) -> None:
    """The graph's ``new_state`` (B, K) of the final states, each (1, B, H), and the (B, n) ``smooth`` behind them."""
    if not finals:
        build.add("Identity", "state", output="new_state")
        return
    parts = build.add("Transpose", build.add("Concat", *finals, axis=0), perm=[1, 0, 2])  # (B, K / H, H)
    flat = build.add("Reshape", parts, build.constant([0, width], np.int64))
    if smooth:
        build.add("Concat", flat, smooth, output="new_state", axis=1)
    else:
        build.add("Identity", flat, output="new_state")


def _with_trees(
    build: _Builder, score: str, grove: Grove, features: Sequence[str], calibration: tuple[float, float], state: str
) -> tuple[str, str]:
    """The (B, T) weighted mean of the networks' ``score`` and the trees', and the (B, n) state of the smoothing."""
    rows = build.add("Reshape", "events", build.constant([-1, len(features)], np.int64))  # (B T, F)
    ahead = build.add("Shape", "events", start=0, end=2)  # (2,) B, T
    slope, intercept = calibration
    raw = _trees(build, grove.smoothed, rows, slope, -slope * START)  # the smoothing begins at zero
    means, smooth = _smoothed(build, raw, len(grove.smoothed), ahead, state)
    habits, *pretrained = (build.add("Add", one, build.constant(slope * START + intercept)) for one in means)
    abroad = _lacks(build, features, FAMILIAR) if FAMILIAR in features else ""

    def weight(near: float, far: float) -> str:
        if not abroad or near == far:
            return build.constant(near)
        return build.add("Where", abroad, build.constant(far), build.constant(near))

    if grove.evidence is None:
        score = _mean(build, score, habits, build.constant(grove.of_habits_abroad))
    else:
        evidence = build.add("Reshape", _trees(build, [grove.evidence], rows, slope, intercept), ahead)
        if grove.enough:
            evidence = build.add("Min", evidence, build.constant(slope * grove.enough + intercept))
        sign = next(name for name in features if name.startswith(RISING))  # all are missing where there is no evidence
        blind = _lacks(build, features, sign)
        far = build.constant(grove.of_habits_abroad)
        near = weight(grove.of_habits, grove.of_habits_abroad)
        share = build.add("Where", blind, build.constant(0.0), weight(grove.share, grove.share_abroad))
        score = _mean(build, score, habits, build.add("Where", blind, far, near))
        score = _mean(build, score, evidence, share)
    for one in pretrained:
        score = _mean(build, score, one, weight(grove.of_pretrained, grove.of_pretrained_abroad))
    return score, smooth


def _mean(build: _Builder, one: str, other: str, share: str) -> str:
    """The mean of two in which ``other`` has this share."""
    rest = build.add("Sub", build.constant(1.0), share)
    return build.add("Add", build.add("Mul", one, rest), build.add("Mul", other, share))


def _lacks(build: _Builder, features: Sequence[str], name: str) -> str:
    """(B, T) bool, the steps without a feature."""
    column = build.add("Gather", "events", build.constant(features.index(name), np.int64), axis=2)
    return build.add("IsNaN", build.add("Reshape", column, build.add("Shape", "events", start=0, end=2)))


def _smoothed(build: _Builder, scores: str, count: int, ahead: str, state: str) -> tuple[list[str], str]:
    """(B, T) running means over :data:`LIFE` queries of each of ``count`` scores a row; and the (B, n) last of each."""
    keep = 0.5 ** (1.0 / LIFE)
    steps = build.add("Reshape", scores, build.add("Concat", ahead, build.constant([count], np.int64), axis=0))
    means = build.add(
        "RNN",
        build.add("Transpose", steps, perm=[1, 0, 2]),  # (T, B, n)
        build.constant([(1.0 - keep) * np.eye(count)]),
        build.constant([keep * np.eye(count)]),
        "",
        "lengths",
        build.add("Unsqueeze", state, build.constant([0], np.int64)),
        count=2,
        hidden_size=count,
        activations=["Affine"],
        activation_alpha=[1.0],
        activation_beta=[0.0],
    )  # (T, 1, B, n), and the last, (1, B, n)
    flat = build.add("Transpose", build.add("Squeeze", means, build.constant([1], np.int64)), perm=[2, 1, 0])
    first = build.add("Split", flat, axis=0, count=count)
    names = [first, *(f"{first}_{at}" for at in range(1, count)), f"{means}_1"]
    *parts, last = (build.add("Squeeze", name, build.constant([0], np.int64)) for name in names)
    return parts, last


def _trees(build: _Builder, grown: Sequence[Trees], rows: str, slope: float, base: float) -> str:
    """(B T, n) log-odds of each row by each, times ``slope``, plus ``base``."""
    trees = together(grown)
    leaf = trees.feature < 0
    owner = np.repeat(np.arange(len(grown)), [int((one.feature < 0).sum()) for one in grown])
    return build.add(
        "TreeEnsembleRegressor",
        rows,
        domain=_ML,
        n_targets=len(grown),
        base_values=[base] * len(grown),
        nodes_treeids=trees.tree.tolist(),
        nodes_nodeids=trees.node.tolist(),
        nodes_featureids=np.where(leaf, 0, trees.feature).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=np.where(leaf, 0.0, trees.value).tolist(),
        nodes_truenodeids=trees.low.tolist(),
        nodes_falsenodeids=trees.high.tolist(),
        nodes_missing_value_tracks_true=trees.gap_low.astype(int).tolist(),
        target_treeids=trees.tree[leaf].tolist(),
        target_nodeids=trees.node[leaf].tolist(),
        target_ids=owner.tolist(),
        target_weights=(slope * trees.value[leaf].astype(np.float64)).tolist(),
    )


def _member(build: _Builder, model: LSTMClassifier, steps: str, states: list[str]) -> tuple[str, list[str]]:
    """One network: its hidden states after every step, (T, 1, B, H), and its final states, each (1, B, H).

    Of two directions the hidden state is the last, over and over: (T, B, 2 H); and no final states.
    """
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    hidden, layers = model.lstm.hidden_size, model.lstm.num_layers
    directions = 2 if model.bidirectional else 1
    finals: list[str] = []
    name = ""
    for layer in range(layers):
        suffixes = [f"l{layer}", f"l{layer}_reverse"][:directions]
        biases = [[_gates(weights[f"lstm.bias_{kind}_{end}"], hidden) for kind in ("ih", "hh")] for end in suffixes]
        name = build.add(
            "LSTM",
            steps,
            build.constant([_gates(weights[f"lstm.weight_ih_{suffix}"], hidden) for suffix in suffixes]),
            build.constant([_gates(weights[f"lstm.weight_hh_{suffix}"], hidden) for suffix in suffixes]),
            build.constant([np.concatenate(pair) for pair in biases]),
            "lengths",
            *(states[2 * layer : 2 * layer + 2] or ["", ""]),
            count=3,
            hidden_size=hidden,
            direction="bidirectional" if directions == 2 else "forward",
        )  # (T, directions, B, H), then final h and c, each (directions, B, H)
        if directions == 1:
            finals += [f"{name}_1", f"{name}_2"]
            if layer + 1 < layers:
                steps = build.add("Squeeze", name, build.constant([1], np.int64))  # (T, B, H)
        else:
            ordered = build.add("Transpose", name, perm=[0, 2, 1, 3])  # (T, B, 2, H)
            steps = build.add("Reshape", ordered, build.constant([0, 0, 2 * hidden], np.int64))
    if directions == 1:
        return name, finals
    last = build.add("Transpose", f"{name}_1", perm=[1, 0, 2])  # (B, 2, H)
    flat = build.add("Reshape", last, build.constant([0, 2 * hidden], np.int64))
    axis = build.add("Shape", steps, start=0, end=1)  # (1,) T
    wide = build.add("Unsqueeze", flat, build.constant([0], np.int64))  # (1, B, 2 H)
    return build.add("Expand", wide, build.add("Concat", axis, build.constant([1, 1], np.int64), axis=0)), []


def _gates(array: NDArray[np.float32], hidden: int) -> NDArray[np.float32]:
    """Torch's i, f, g, o along the first axis as ONNX's i, o, f, g."""
    order = np.concatenate([np.arange(gate * hidden, (gate + 1) * hidden) for gate in (0, 3, 1, 2)])
    return np.asarray(array[order])
