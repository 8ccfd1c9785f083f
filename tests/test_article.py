"""The article's system, part by part: a test for each row A1 to A19 of its specification."""

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn import metrics as standard
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset

from probewatch.bundle import Bundle, read_bundle
from probewatch.corpus.article import draw_events, draw_tasks
from probewatch.data.columns import ARTICLE
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.logs import read_logs
from probewatch.data.ragged import Ragged
from probewatch.errors import ConfigError, DataError
from probewatch.learn.batches import SequenceDataset
from probewatch.learn.dataset import Scaler, split_sessions
from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.presets import PRESETS
from probewatch.learn.train import fit, loss_of
from probewatch.score.batch import Scorer

PRESET = PRESETS["article"]
pytestmark = pytest.mark.usefixtures("one_thread")


def write_tasks(path: Path, tasks: dict) -> Path:
    path.write_text(json.dumps(tasks))
    return path


def read_labelled(path: Path) -> Labelled:
    with read_logs([path]) as log:
        sessions = log.all_sessions()
        none = np.full(len(sessions), "", object)
        return Labelled(sessions, sessions.label, none, np.zeros(len(sessions), bool), log.sha256)


def random_batch(lengths, features=3, seed=0):
    """(B, T, F) events padded with noise that nothing may see, and (B,) lengths."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), features, generator=generator), torch.tensor(lengths)


def random_sequences(lengths, seed=0, features=3):
    random = np.random.default_rng(seed)
    return Ragged.from_list([random.normal(size=(length, features)) for length in lengths])


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    return LSTMClassifier(3, **options).eval()


@dataclass(frozen=True)
class Trained:
    data: Labelled
    bundle: Bundle
    metrics: dict

    @property
    def predictions(self) -> list[dict[str, str]]:
        with (self.bundle.folder / "report" / "predictions.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tasks():
    return draw_tasks()


@pytest.fixture(scope="module")
def toy(tasks, tmp_path_factory):
    return read_labelled(write_tasks(tmp_path_factory.mktemp("toy") / "tasks.json", tasks))


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """The article's system, exactly but for the number of epochs."""
    folder = tmp_path_factory.mktemp("trained")
    bundle, metrics = train_detector(toy, replace(PRESET, epochs=25), folder, device="cpu", rivals=False)
    return Trained(toy, bundle, metrics)


def test_a01_tasks_are_read_from_one_json_object(tasks, toy, tmp_path):
    assert len(toy.sessions) == len(tasks) == 200
    told = dict(zip(toy.sessions.session, toy.label, strict=True))
    assert told == {name: int(task["is_malicious"]) for name, task in tasks.items()}
    bare = {name: {key: task[key] for key in ("is_malicious", "sequence")} for name, task in tasks.items()}
    without = read_labelled(write_tasks(tmp_path / "bare.json", bare))  # no task_id, no global_features
    assert np.array_equal(without.sessions.confidence, toy.sessions.confidence)
    assert np.array_equal(without.label, toy.label)


def test_a02_three_columns_in_order_others_ignored_a_missing_one_refused(tasks, toy, tmp_path):
    assert PRESET.features == (
        "response_confidence",
        "time_delta_since_last_query",
        "distance_from_anchor_vector",
    )
    sequences = compute(toy.sessions, PRESET.features, Known())
    assert sequences.values.shape[1] == 3  # timestep is none of them
    first = tasks[toy.sessions.session[0]]["sequence"]
    assert sequences[0][:, 0].tolist() == pytest.approx([event["response_confidence"] for event in first])
    assert sequences[0][0, 1] == 0
    for name in PRESET.features:
        without = {
            task: {**found, "sequence": [{k: v for k, v in event.items() if k != name} for event in found["sequence"]]}
            for task, found in list(tasks.items())[:4]
        }
        sessions = read_labelled(write_tasks(tmp_path / f"{name}.json", without)).sessions
        with pytest.raises(DataError, match=f"the log has no column \\['{name}'\\]"):
            compute(sessions, PRESET.features, Known())


def test_a03_a_task_becomes_a_float32_array_of_its_steps_in_order(tasks, toy):
    sequences = compute(toy.sessions, PRESET.features, Known())
    for session, name in enumerate(toy.sessions.session):
        rows = [[event[column] for column in PRESET.features] for event in tasks[name]["sequence"]]
        assert sequences[session].dtype == np.float32
        assert np.array_equal(sequences[session], np.array(rows, np.float32))
    assert set(toy.label.tolist()) == {0, 1}


def test_a04_the_split_is_112_28_60_and_scikit_learns_of_the_tasks_in_their_order(tasks, toy):
    split = split_sessions(toy.sessions, toy.label, np.ones(200, bool), PRESET)
    assert (len(split.train), len(split.valid), len(split.test)) == (112, 28, 60)
    names = np.array(list(tasks), object)
    label = np.array([task["is_malicious"] for task in tasks.values()], int)
    rest, test, rest_label, _ = train_test_split(np.arange(200), label, test_size=0.3, random_state=42, stratify=label)
    train, valid = train_test_split(rest, test_size=0.2, random_state=42, stratify=rest_label)
    for part, wanted in ((split.test, test), (split.valid, valid), (split.train, train)):
        assert toy.sessions.session[part].tolist() == names[wanted].tolist()
    assert [int(label[part].sum()) for part in (train, valid, test)] == [45, 11, 24]  # two in five


def test_a05_the_scaler_is_the_standard_scaler_of_stacked_training_steps(toy):
    sequences = compute(toy.sessions, PRESET.features, Known())
    split = split_sessions(toy.sessions, toy.label, np.ones(200, bool), PRESET)
    stacked = np.vstack([sequences[session] for session in split.train]).astype(np.float64)
    standard_scaler = StandardScaler().fit(stacked)
    scaler = Scaler.fit(sequences.take(split.train))
    assert np.allclose(scaler.mean, standard_scaler.mean_, rtol=1e-12)
    assert np.allclose(scaler.deviation, standard_scaler.scale_, rtol=1e-12)
    scaled = scaler.transform(sequences)
    for session in split.test:
        assert np.allclose(scaled[session], standard_scaler.transform(sequences[session]), atol=1e-5)


def test_a05_the_test_tasks_leave_no_trace_in_the_detector(tmp_path):
    tasks = draw_tasks(40)
    data = read_labelled(write_tasks(tmp_path / "tasks.json", tasks))
    split = split_sessions(data.sessions, data.label, np.ones(40, bool), PRESET)

    def graph_without(part, name):
        chosen = data.sessions.session[part]
        changed = {
            task: {**found, "sequence": [slowed(event) for event in found["sequence"]]} if task in chosen else found
            for task, found in tasks.items()
        }
        other = read_labelled(write_tasks(tmp_path / f"{name}.json", changed))
        short = replace(PRESET, epochs=1, hidden=4)
        return train_detector(other, short, tmp_path / name, device="cpu", rivals=False)[0].graph

    graph = graph_without([], "none")
    assert graph_without(split.test, "test") == graph
    assert graph_without(split.train[:1], "train") != graph


def slowed(event):
    return {**event, "time_delta_since_last_query": 100 * event["time_delta_since_last_query"]}


def test_a06_padding_and_truncation_at_either_end():
    steps = np.array([1, 2, 3, 4, 5], np.float32)[:, None]
    sequences = Ragged.from_list([steps, steps[:2], np.zeros((0, 1))])

    def padded(**options):
        features, lengths, starts = sequences.pad(4, **options)
        return features[:, :, 0].tolist(), lengths.tolist(), starts.tolist()

    assert padded() == ([[1, 2, 3, 4], [1, 2, 0, 0], [0, 0, 0, 0]], [4, 2, 0], [0, 0, 0])
    assert padded(truncating="pre")[0] == [[2, 3, 4, 5], [1, 2, 0, 0], [0, 0, 0, 0]]
    assert padded(padding="pre") == ([[1, 2, 3, 4], [0, 0, 1, 2], [0, 0, 0, 0]], [4, 2, 0], [0, 2, 4])
    assert padded(padding="pre", truncating="pre", value=-1.0)[0] == [[2, 3, 4, 5], [-1, -1, 1, 2], [-1] * 4]
    with pytest.raises(DataError, match="empty"):  # it can be padded, but not trained on
        fit(sequences, np.array([0, 1, 0]), sequences, np.array([0, 1, 0]), replace(PRESET, features=ARTICLE[:1]))


def test_a07_types_are_float32_features_and_labels_int64_lengths_and_class_numbers():
    sequences = random_sequences([3, 5])
    features, label, lengths = SequenceDataset(sequences, np.array([0, 1])).tensors
    assert (features.dtype, label.dtype, lengths.dtype) == (torch.float32, torch.float32, torch.int64)
    assert SequenceDataset(sequences, np.array([0, 1]), outputs=2).tensors[1].dtype == torch.int64
    padded, lengths, starts = sequences.pad(4)
    assert (padded.dtype, lengths.dtype, starts.dtype) == (np.float32, np.int64, np.int64)
    assert (sequences.values.dtype, sequences.offsets.dtype) == (np.float32, np.int64)


def test_a08_a_map_style_data_set_and_plain_tensors_serve_the_loader():
    lengths = [*range(1, 20), 200]
    dataset = SequenceDataset(random_sequences(lengths), np.arange(20) % 2)
    features, label, length = dataset[19]
    assert (features.shape, label.item(), length.item()) == ((150, 3), 1.0, 150)
    model = make_model()
    for source in (dataset, TensorDataset(*dataset.tensors)):
        batches = list(DataLoader(source, batch_size=16))
        assert [len(batch[1]) for batch in batches] == [16, 4]
        assert torch.equal(torch.cat([batch[2] for batch in batches]), dataset.tensors[2])  # not shuffled
        logits = torch.cat([model(features, lengths) for features, _, lengths in batches])
        assert logits.shape == (20,)
        shuffled = DataLoader(source, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(0))
        pairs = [(features, length) for batch in shuffled for features, length in zip(batch[0], batch[2], strict=True)]
        assert sorted(length.item() for _, length in pairs) == sorted(dataset.tensors[2].tolist())
        for features, length in pairs:  # a sequence and its length travel together
            assert torch.count_nonzero(features.abs().sum(dim=1)) == length


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a09_the_final_state_and_the_gathered_output_are_the_same(layers, bidirectional):
    events, lengths = random_batch([7, 40, 1, 150, 23])
    model = make_model(layers=layers, bidirectional=bidirectional)
    final = model(events, lengths)
    model.use_last_only = False
    gathered = model(events, lengths)
    assert torch.allclose(final, gathered, atol=1e-6)
    assert torch.allclose(final, one_by_one(model, events, lengths), atol=1e-5)


def one_by_one(model, events, lengths):
    """The logits by torch's LSTM on each sequence alone, without padding, from its final states."""
    logits = []
    for sequence, length in zip(events, lengths, strict=True):
        _, (final, _) = model.lstm(sequence[None, :length])
        last = torch.cat([final[-2], final[-1]], dim=1) if model.bidirectional else final[-1]
        logits.append(model.linear(last)[0, 0])
    return torch.stack(logits)


def test_a09_the_articles_gather_is_wrong_for_two_directions():
    errors = []
    for seed in range(10):
        events, lengths = random_batch([150, 120, 90, 60], seed=seed)
        model = make_model(seed, bidirectional=True, use_last_only=False)
        packed = pack_padded_sequence(events, lengths, batch_first=True)
        outputs, (final, _) = model.lstm(packed)
        states, _ = pad_packed_sequence(outputs, batch_first=True)
        article = states[torch.arange(4), lengths - 1]  # (B, 2 H)
        truth = torch.cat([final[-2], final[-1]], dim=1)
        assert torch.allclose(article[:, :64], truth[:, :64], atol=1e-6)  # forward: right
        errors.append((article - truth).abs().max().item())  # backward: after one single step
        assert torch.allclose(model(events, lengths), model.linear(truth).squeeze(-1), atol=1e-6)
    assert 0.1 < min(errors) < max(errors) < 0.35


def test_a09_the_network_is_the_articles():
    model = LSTMClassifier(3)
    assert (model.lstm.input_size, model.lstm.hidden_size, model.lstm.num_layers) == (3, 64, 1)
    assert model.lstm.batch_first
    assert not model.lstm.bidirectional
    assert (model.lstm.dropout, model.dropout.p, model.linear.out_features) == (0.0, 0.5, 1)
    assert LSTMClassifier(3, layers=2).lstm.dropout == 0.5
    assert LSTMClassifier(3, bidirectional=True).linear.in_features == 128
    assert (PRESET.hidden, PRESET.layers, PRESET.dropout, PRESET.bidirectional) == (64, 1, 0.5, False)


VARIANTS = {
    "one direction, gathered": {"use_last_only": False},
    "stacked": {"layers": 2},
    "bidirectional": {"bidirectional": True},
    "bidirectional, gathered": {"bidirectional": True, "use_last_only": False},
    "bidirectional and stacked": {"bidirectional": True, "layers": 2},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return read_labelled(write_tasks(tmp_path_factory.mktemp("small") / "tasks.json", draw_tasks(40)))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a09_every_option_trains_and_scores(small, tmp_path, changes):
    config = replace(PRESET, **{"epochs": 3, "hidden": 16, **changes})
    train_detector(small, config, tmp_path, device="cpu", rivals=False)
    bundle = read_bundle(tmp_path)
    assert bundle.manifest["streams"] is not config.bidirectional
    assert [one for verdicts in Scorer(bundle).score([small.sessions]) for one in verdicts.session] == list(
        small.sessions.session
    )
    assert scores_of(bundle, small) == pytest.approx(torch_scores(bundle, small), abs=1e-5)


def scores_of(bundle, data):
    return np.concatenate([verdicts.score for verdicts in Scorer(bundle).score([data.sessions])])


def torch_scores(bundle, data):
    """The scores by the saved weights in the torch model, without the graph."""
    sequences = compute(data.sessions, PRESET.features, Known())
    split = split_sessions(data.sessions, data.label, np.ones(len(data.label), bool), PRESET)
    scaler = StandardScaler().fit(sequences.take(split.train).values.astype(np.float64))
    model = saved_model(bundle)
    with torch.no_grad():
        logits = [
            model(torch.from_numpy(scaler.transform(sequence)[None]).float(), torch.tensor([len(sequence)]))
            for sequence in sequences
        ]
    return torch.cat(logits).sigmoid().numpy()


def saved_weights(bundle):
    weights = load_file(bundle.folder / bundle.manifest["files"]["weights"])
    return {name.removeprefix("0/"): tensor for name, tensor in weights.items()}


def saved_model(bundle):
    config = bundle.manifest["config"]
    options = {name: config[name] for name in ("hidden", "layers", "bidirectional", "use_last_only")}
    model = LSTMClassifier(3, **options).eval()
    model.load_state_dict(saved_weights(bundle))
    return model


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bidirectional": True, "use_last_only": False}])
def test_a10_order_padding_and_company_do_not_touch_a_result(options):
    model = make_model(**options)
    events, lengths = random_batch([5, 90, 12, 150, 1, 33])
    logits = model(events, lengths)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.allclose(model(events[order], lengths[order]), logits[order], atol=1e-6)
    other = torch.where(torch.arange(150)[None, :, None] < lengths[:, None, None], events, torch.tensor(1e3))
    assert torch.allclose(model(other, lengths), logits, atol=1e-6)
    alone = model(events[3:4], lengths[3:4])
    assert alone.shape == (1,)  # a last batch of one is no scalar
    assert torch.allclose(alone, logits[3:4], atol=1e-6)


def test_a10_the_last_column_of_a_padded_batch_is_not_the_last_step():
    model = make_model()
    features, _, lengths = SequenceDataset(random_sequences([70, 90, 150]), np.zeros(3)).tensors
    states, _ = model.lstm(features)
    classic = model.linear(states[:, -1, :]).squeeze(-1)
    logits = model(features, lengths)
    assert torch.allclose(classic[2], logits[2], atol=1e-6)  # the one that fills the batch
    assert torch.allclose(classic[0], classic[1], atol=1e-6)  # the padding's answer, whatever was asked
    assert abs(logits[0] - logits[1]) > 0.01


def test_a11_the_logits_loss_equals_the_loss_of_sigmoids():
    events, lengths = random_batch([9, 30, 4])
    label = torch.tensor([1.0, 0.0, 1.0])
    model = make_model()
    with torch.no_grad():
        ours = loss_of(model, events, lengths, label, None, every_step=False)
        probability = model(events, lengths).sigmoid()
    assert ours.item() == pytest.approx(standard.log_loss(label, probability), abs=1e-6)


def test_a11_logits_that_saturate_a_sigmoid_keep_their_gradient():
    model = make_model()
    nn.init.constant_(model.linear.bias, -200.0)  # a sigmoid of it is 0 in float32, its logarithm infinite
    events, lengths = random_batch([9])
    loss = loss_of(model, events, lengths, torch.ones(1), None, every_step=False)
    loss.backward()
    assert loss.item() == pytest.approx(200.0, rel=1e-2)
    assert model.linear.bias.grad.item() == pytest.approx(-1.0)


def one_step(sequences, label, tmp_path, **changes):
    """Train for one step on one batch; the weights before, after, and what the optimiser remembers."""
    config = replace(PRESET, **{"epochs": 1, "batch": len(label), "dropout": 0.0, "seed": 5, **changes})
    checkpoint = tmp_path / "state.safetensors"
    fitted = fit(sequences, label, sequences, label, config, checkpoint=checkpoint)
    saved = load_file(checkpoint)
    moments = [saved[f"optimiser/{index}/exp_avg"] for index in range(6)]  # 0.1 times the first gradient
    start = make_model(5, dropout=0.0)
    return start, fitted, [moment / 0.1 for moment in moments]


def gradients(model, sequences, label):
    """By hand: the mean logits loss of all sequences in one batch."""
    features, label, lengths = SequenceDataset(sequences, label).tensors
    nn.BCEWithLogitsLoss()(model(features, lengths), label).backward()
    return [parameter.grad for parameter in model.parameters()]


def test_a11_the_optimiser_is_adam_at_a_thousandth(tmp_path):
    assert PRESET.learning_rate == 1e-3
    sequences, label = random_sequences([20, 35, 50, 65]), np.array([0, 1, 0, 1])
    start, fitted, _ = one_step(sequences, label, tmp_path)
    optimiser = torch.optim.Adam(start.parameters(), lr=1e-3)
    gradients(start, sequences, label)
    nn.utils.clip_grad_norm_(start.parameters(), 1.0)
    optimiser.step()
    for ours, by_hand in zip(fitted.model.parameters(), start.parameters(), strict=True):
        assert torch.allclose(ours, by_hand, atol=1e-5)


def test_a11_a_score_is_the_sigmoid_of_the_models_logit(trained):
    assert scores_of(trained.bundle, trained.data) == pytest.approx(
        torch_scores(trained.bundle, trained.data), abs=1e-5
    )


def test_a12_cuda_is_used_where_there_is_one_and_the_cpu_elsewhere(small, tmp_path):
    config = replace(PRESET, epochs=1, hidden=4)
    train_detector(small, config, tmp_path / "auto", device="auto", rivals=False)
    if torch.cuda.is_available():
        train_detector(small, config, tmp_path / "cuda", device="cuda", rivals=False)
        bundle = read_bundle(tmp_path / "cuda")
        assert scores_of(bundle, small) == pytest.approx(torch_scores(bundle, small), abs=1e-5)
    else:
        with pytest.raises(ConfigError, match="torch finds no CUDA device here"):
            train_detector(small, config, tmp_path / "cuda", device="cuda", rivals=False)
        train_detector(small, config, tmp_path / "cpu", device="cpu", rivals=False)
        assert (
            saved_weights(read_bundle(tmp_path / "auto")).keys() == saved_weights(read_bundle(tmp_path / "cpu")).keys()
        )
        assert read_bundle(tmp_path / "auto").graph == read_bundle(tmp_path / "cpu").graph


def test_a12_a_printed_model_shows_its_layers():
    assert re.search(
        r"LSTM\(3, 64, batch_first=True\).*Dropout\(p=0.5.*Linear\(in_features=64, out_features=1",
        str(LSTMClassifier(3)),
        re.DOTALL,
    )


def test_a13_losses_are_weighted_by_the_size_of_the_batches():
    lengths = [*range(5, 45)]  # 40 sequences: batches of 16, 16 and 8
    sequences, label = random_sequences(lengths), (np.arange(40) >= 30).astype(np.int8)
    told = []
    config = replace(PRESET, epochs=2, dropout=0.0, learning_rate=1e-12, seed=3)
    fitted = fit(
        sequences, label, sequences.take(np.arange(33)), label[:33], config,
        progress=lambda epoch, epochs: told.append((epoch["epoch"], epochs)),
    )  # fmt: skip
    features, labels, lengths = SequenceDataset(sequences, label).tensors
    with torch.no_grad():
        each = nn.BCEWithLogitsLoss(reduction="none")(make_model(3, dropout=0.0)(features, lengths), labels)
    for epoch in fitted.history:
        assert epoch["train_loss"] == pytest.approx(each.mean().item(), abs=1e-6)
        assert epoch["valid_loss"] == pytest.approx(each[:33].mean().item(), abs=1e-6)
    assert told == [(1, 2), (2, 2)]  # a train pass and a validation pass each, then told
    assert PRESET.epochs == 100


@pytest.mark.parametrize("clip", [1e-3, 1e6])
def test_a14_the_gradient_is_clipped_before_the_step(tmp_path, clip):
    sequences, label = random_sequences([20, 35, 50, 65]), np.array([0, 1, 1, 1])
    start, _, seen = one_step(sequences, label, tmp_path, clip=clip)
    whole = gradients(start, sequences, label)
    norm = torch.cat([one.flatten() for one in whole]).norm().item()
    assert 0.01 < norm < 1e3
    scale = min(1.0, clip / norm)
    assert torch.cat([one.flatten() for one in seen]).norm().item() == pytest.approx(norm * scale, rel=1e-3)
    for ours, by_hand in zip(seen, whole, strict=True):
        assert torch.allclose(ours / scale, by_hand, atol=1e-4)
    assert PRESET.clip == 1.0


def test_a15_training_stops_when_patience_runs_out_and_keeps_the_best_weights():
    random = np.random.default_rng(0)
    label = np.arange(48) % 2
    sequences = Ragged.from_list([random.normal(one, 1.0, size=(20, 3)) for one in label])
    contrary = 1 - label  # what is learned makes the validation loss worse
    config = replace(PRESET, epochs=60, patience=4, learning_rate=3e-3)
    fitted = fit(sequences, label, sequences, contrary, config)
    losses = [epoch["valid_loss"] for epoch in fitted.history]
    assert len(losses) == fitted.best_epoch + 4 < 60
    assert fitted.best_epoch == int(np.argmin(losses)) + 1
    features, labels, lengths = SequenceDataset(sequences, contrary).tensors
    with torch.no_grad():
        reloaded = nn.BCEWithLogitsLoss()(fitted.model(features, lengths), labels).item()
    assert reloaded == pytest.approx(min(losses), abs=1e-6)
    assert losses[-1] > min(losses) + 0.01
    assert PRESET.patience == 10


def test_a16_the_report_draws_both_losses_of_every_epoch(trained):
    (history,) = trained.bundle.manifest["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1))
    assert all(np.isfinite([epoch["train_loss"], epoch["valid_loss"]]).all() for epoch in history)
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    page = (trained.bundle.folder / "report" / "index.html").read_text()
    assert "Loss by epoch" in page


def test_a17_the_test_split_is_evaluated_once_with_every_figure(trained):
    rows = [row for row in trained.predictions if row["split"] == "test"]
    metrics = json.loads((trained.bundle.folder / "report" / "metrics.json").read_text())
    label = np.array([int(row["label"]) for row in rows])
    score = np.array([float(row["score"]) for row in rows])
    alert = score >= 0.5
    assert metrics["n"] == len(rows) == 60
    assert metrics["threshold"] == PRESET.threshold == 0.5
    assert metrics["loss"] == pytest.approx(standard.log_loss(label, score), abs=1e-6)
    assert metrics["roc_auc"] == pytest.approx(standard.roc_auc_score(label, score))
    assert metrics["confusion_matrix"] == standard.confusion_matrix(label, alert).tolist()
    table = standard.classification_report(label, alert, target_names=["benign", "attack"], output_dict=True)
    assert metrics["accuracy"] == pytest.approx(table["accuracy"])
    for name in ("benign", "attack"):
        ours, theirs = metrics["per_class"][name], table[name]
        figures = [ours[key] for key in ("precision", "recall", "f1", "support")]
        assert figures == pytest.approx([theirs[key] for key in ("precision", "recall", "f1-score", "support")])
    page = (trained.bundle.folder / "report" / "index.html").read_text()
    assert "Confusion matrix" in page
    assert Counter(row["split"] for row in trained.predictions) == {"train": 112, "valid": 28, "test": 60}


def test_a17_the_articles_system_solves_the_articles_data(trained):
    assert trained.metrics["roc_auc"] == 1.0
    assert trained.metrics["accuracy"] == 1.0


def test_a18_the_bundle_holds_the_best_models_weights(trained):
    sequences = compute(trained.data.sessions, PRESET.features, Known())
    split = split_sessions(trained.data.sessions, trained.data.label, np.ones(200, bool), PRESET)
    scaled = Scaler.fit(sequences.take(split.train)).transform(sequences)
    again = fit(
        scaled.take(split.train), trained.data.label[split.train],
        scaled.take(split.valid), trained.data.label[split.valid], replace(PRESET, epochs=25),
    )  # fmt: skip
    saved = saved_weights(trained.bundle)
    assert saved.keys() == again.model.state_dict().keys()
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(saved[name], tensor)


def test_a19_features_of_a_raw_log_equal_a_computation_by_hand(tmp_path):
    events = draw_events(12, seed=3)
    order = np.random.default_rng(0).permutation(len(events))  # the log need not be in time order
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(events[place]) + "\n" for place in order))
    with read_logs([path]) as log:
        sessions, counts = log.all_sessions(), log.counts
    kinds = Counter(event["eventType"] for event in events)
    assert set(kinds) == {"task_start", "model_query", "internal_activity", "task_end"}
    assert (counts.events, counts.rejects, counts.duplicates) == (kinds["model_query"], 0, 0)
    assert counts.read == counts.events + counts.skipped == len(events)
    sequences = compute(sessions, PRESET.features, Known())
    for session, task in enumerate(sessions.session):
        assert sequences[session] == pytest.approx(by_hand(events, task), abs=1e-5)


def test_a19_the_causal_anchor_is_the_articles_from_the_highest_confidence_on(tmp_path):
    tasks = draw_tasks(12, seed=3)
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in draw_events(12, seed=3)))
    with read_logs([path]) as log:
        sessions = log.all_sessions()
    sequences = compute(sessions, PRESET.features, Known())
    for session, task in enumerate(sessions.session):
        article = np.array([[event[name] for name in PRESET.features] for event in tasks[task]["sequence"]])
        best = np.argmax(article[:, 0])
        assert sequences[session][:, :2] == pytest.approx(article[:, :2], abs=1e-5)
        assert sequences[session][best:, 2] == pytest.approx(article[best:, 2], abs=1e-4)


def by_hand(events, task):
    """(T, 3) confidence, gap and distance from the most confident query so far, in plain Python."""
    queries = [event for event in events if event["eventType"] == "model_query" and event["context"]["taskId"] == task]
    rows, best, anchor, before = [], -1.0, None, None
    for event in sorted(queries, key=lambda event: event["timestamp"]):
        time = datetime.fromisoformat(event["timestamp"])
        confidence = event["details"]["queryResponse"]["confidence"]
        inputs = event["details"]["queryInput"]["featureVector"]
        if confidence > best:
            best, anchor = confidence, inputs
        gap_s = (time - before).total_seconds() if before else 0.0
        distance = sum((one - other) ** 2 for one, other in zip(inputs, anchor, strict=True)) ** 0.5
        rows.append([confidence, gap_s, distance])
        before = time
    return np.array(rows)
