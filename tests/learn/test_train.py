import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from probewatch.data.ragged import Ragged
from probewatch.errors import DataError, TrainingError
from probewatch.learn.model import LSTMClassifier
from probewatch.learn.presets import Config
from probewatch.learn.train import check_sequences, fit, loss_of

TINY = Config(
    hidden=3, batch=8, epochs=6, patience=6, learning_rate=1e-2, every_step=False, decision="last", balanced=False
)
KINDS = {
    "last step": TINY,
    "every step": replace(TINY, every_step=True, balanced=True),
    "both ways, two layers": replace(TINY, layers=2, bidirectional=True),
}

CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_train import TINY, run
run(replace(TINY, epochs=100_000, patience=100_000), checkpoint=Path(sys.argv[1]),
    progress=lambda epoch, epochs: print(epoch["epoch"], flush=True))
"""


class KilledError(Exception):
    pass


def made(sequences=24, seed=0, classes=2):
    """Sequences of 1 to 7 steps whose mean tells the class, and some noise."""
    random = np.random.default_rng(seed)
    label = np.arange(sequences) % classes
    steps = [random.normal(number, 1.0, (random.integers(1, 8), 2)) for number in label]
    return Ragged.from_list(steps), label


def run(config=TINY, *, classes=2, **options):
    return fit(*made(classes=classes), *made(12, 1, classes), config, **options)


def kill_after(epochs):
    def progress(epoch, at_most):
        if epoch["epoch"] == epochs:
            raise KilledError

    return progress


def assert_same(one, other):
    assert one.history == other.history
    assert one.best_epoch == other.best_epoch
    weights, others = one.model.state_dict(), other.model.state_dict()
    assert {name: tensor.numpy().tobytes() for name, tensor in weights.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in others.items()
    }


def validation_loss(fitted, config=TINY):
    sequences, label = made(12, 1)
    padded, lengths, _ = sequences.pad(int(sequences.lengths.max()))
    with torch.no_grad():
        told = torch.as_tensor(label, dtype=torch.float32)
        return loss_of(fitted.model, torch.from_numpy(padded), torch.from_numpy(lengths), told, None, False).item()


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("epochs", [1, 4])
def test_a_killed_run_goes_on_to_the_same_bytes_as_an_unbroken_one(config, epochs, tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KilledError):
        run(config, checkpoint=checkpoint, progress=kill_after(epochs))
    torch.manual_seed(99)  # whatever the second process's state is
    seen = []
    resumed = run(config, checkpoint=checkpoint, progress=lambda epoch, at_most: seen.append(epoch["epoch"]))
    assert seen == list(range(epochs + 1, 7))
    assert_same(resumed, run(config))


def test_a_run_that_is_killed_by_the_system_goes_on_to_the_same_bytes(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    folder = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(checkpoint), folder], stdout=subprocess.PIPE, text=True
    ) as child:
        for line in child.stdout:
            if int(line) == 3:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    seen = []
    with pytest.raises(KilledError):  # how far it had come, told by the epoch that comes next
        run(
            replace(TINY, epochs=100_000, patience=100_000),
            checkpoint=checkpoint,
            progress=lambda epoch, at_most: seen.append(epoch["epoch"]) or kill_after(epoch["epoch"])(epoch, at_most),
        )
    assert seen[0] > 3
    config = replace(TINY, epochs=seen[0] + 2, patience=100_000)
    assert_same(run(config, checkpoint=checkpoint), run(config))


def test_a_half_written_checkpoint_is_not_read(tmp_path):
    (tmp_path / ".run.safetensors.partial").write_bytes(b"\x00half")
    assert_same(run(checkpoint=tmp_path / "run.safetensors"), run())


def test_a_finished_run_is_not_trained_again(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    first = run(checkpoint=checkpoint)
    assert_same(run(checkpoint=checkpoint, progress=kill_after(1)), first)


def test_a_run_that_stopped_early_is_not_trained_further(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    config = replace(TINY, epochs=50, patience=2, learning_rate=0.5)
    first = run(config, checkpoint=checkpoint)
    assert len(first.history) < 50
    assert_same(run(config, checkpoint=checkpoint), first)


@pytest.mark.parametrize("fault", ["not one at all", "cut short", "of another network", "without its history"])
def test_a_checkpoint_that_does_not_fit_is_refused_with_a_sentence(fault, tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    run(checkpoint=checkpoint)
    config = TINY
    if fault == "not one at all":
        checkpoint.write_bytes(b"something else")
    elif fault == "cut short":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-40])
    elif fault == "of another network":
        config = replace(TINY, hidden=4)
    else:
        save_file({"model/x": torch.zeros(1)}, checkpoint)
    with pytest.raises(DataError, match=r"run\.safetensors: not a checkpoint of this run .*; delete it"):
        run(config, checkpoint=checkpoint)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_the_same_seed_gives_the_same_bytes_whatever_the_state_of_torch(config):
    first = run(config)
    torch.manual_seed(5)
    assert_same(run(config), first)


def test_another_seed_gives_other_weights():
    first, second = run(), run(replace(TINY, seed=1))
    assert not torch.equal(first.model.linear.weight, second.model.linear.weight)


def test_the_state_of_torch_and_its_threads_are_as_before():
    torch.manual_seed(7)
    expected = torch.rand(3)
    for progress in (None, kill_after(1)):
        torch.manual_seed(7)
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            run(progress=progress)
        except KilledError:
            assert progress is not None
        assert torch.get_num_threads() == 2
        torch.set_num_threads(threads)
        assert torch.equal(torch.rand(3), expected)


def test_the_arguments_are_as_before():
    sequences, label = made()
    values, offsets, numbers = sequences.values.copy(), sequences.offsets.copy(), label.copy()
    fit(sequences, label, *made(12, 1), replace(TINY, steps=3))
    assert np.array_equal(sequences.values, values)
    assert np.array_equal(sequences.offsets, offsets)
    assert np.array_equal(label, numbers)


def test_the_best_weights_are_kept_not_the_last():
    fitted = run(replace(TINY, epochs=12, patience=12, learning_rate=0.3, skip=False))
    losses = [epoch["valid_loss"] for epoch in fitted.history]
    assert fitted.best_epoch == int(np.argmin(losses)) + 1 < 12
    assert validation_loss(fitted) == pytest.approx(min(losses), abs=1e-6)


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_when_patience_is_over(patience):
    config = replace(TINY, epochs=60, patience=patience, learning_rate=0.5)
    fitted = run(config)
    assert len(fitted.history) == fitted.best_epoch + patience < 60
    assert_same(run(replace(config, epochs=len(fitted.history))), fitted)


def test_the_history_counts_epochs_from_one_and_its_losses_fall():
    fitted = run(replace(TINY, dropout=0.0))
    assert [epoch["epoch"] for epoch in fitted.history] == [1, 2, 3, 4, 5, 6]
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    assert not fitted.model.training


def test_progress_is_told_each_epoch_once_with_the_most_there_can_be():
    told = []
    fitted = run(progress=lambda epoch, at_most: told.append((epoch, at_most)))
    assert told == [(epoch, 6) for epoch in fitted.history]


@pytest.mark.parametrize(("batch", "part"), [(8, "training"), (64, "validation")])
def test_a_loss_that_is_not_finite_stops_with_its_epoch_and_sequences(batch, part):
    config = replace(TINY, batch=batch, epochs=200, patience=200)
    object.__setattr__(config, "learning_rate", 1e36)  # no setting that Config allows throws the weights so far
    done = []
    told = rf"the loss is (inf|nan) in epoch \d+, in the batch of {part} sequences \[\d+, .*; lower learning_rate"
    with pytest.raises(TrainingError, match=told) as error:
        run(config, progress=lambda epoch, at_most: done.append(epoch["epoch"]))
    assert f"in epoch {len(done) + 1}," in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda steps: steps[:0], "there are no training sequences"),
        (lambda steps: [*steps[:3], steps[0][:0]], "training sequence 3 is empty, expected at least one step"),
        (lambda steps: [*steps[:3], steps[3] * np.nan], "training sequence 3 has a value that is not finite at step 0"),
        (
            lambda steps: [*steps[:2], [[0, 1], [2, np.inf]]],
            "training sequence 2 has a value that is not finite at step 1",
        ),
    ],
)
def test_sequences_that_cannot_be_learned_from_are_named(change, told):
    sequences, label = made()
    broken = Ragged.from_list(change([sequences[index] for index in range(len(sequences))]))
    with pytest.raises(DataError, match=told):
        fit(broken, label[: len(broken)], *made(12, 1), TINY)


def test_the_validation_sequences_are_checked_too():
    with pytest.raises(DataError, match="validation sequence 0 is empty"):
        fit(*made(), Ragged(np.zeros((0, 2), np.float32), np.array([0, 0])), np.array([1]), TINY)


def test_sequences_of_one_step_are_enough():
    check_sequences(Ragged.from_list([[[1.0]]]), "training")


def test_training_is_cut_to_the_steps_asked_for():
    sequences, label = made()
    valid = made(12, 1)
    cut = fit(sequences.truncate(3), label, valid[0].truncate(3), valid[1], TINY)
    assert_same(fit(sequences, label, *valid, replace(TINY, steps=3)), cut)


def test_attacks_weigh_as_much_as_the_benign_if_asked_to():
    # no features, so the best score is a constant: the log-odds of the classes, or 0 if they weigh the same
    flat = Ragged(np.zeros((40, 1), np.float32), np.arange(41))
    label = (np.arange(40) < 8).astype(np.int64)
    config = replace(TINY, dropout=0.0, epochs=60, patience=60, batch=40, learning_rate=0.1)
    for balanced, expected in ((False, np.log(8 / 32)), (True, 0.0)):
        fitted = fit(flat, label, flat, label, replace(config, balanced=balanced))
        with torch.no_grad():
            logit = fitted.model(torch.zeros(1, 1, 1), torch.tensor([1])).item()
        assert logit == pytest.approx(expected, abs=0.02)


def test_several_classes_weigh_the_same_if_asked_to():
    flat = Ragged(np.zeros((40, 1), np.float32), np.arange(41))
    label = np.repeat([0, 1, 2], [4, 16, 20])
    config = replace(TINY, dropout=0.0, epochs=60, patience=60, batch=40, learning_rate=0.1)
    for balanced, expected in ((False, [0.1, 0.4, 0.5]), (True, [1 / 3] * 3)):
        fitted = fit(flat, label, flat, label, replace(config, balanced=balanced), outputs=3)
        with torch.no_grad():
            share = fitted.model(torch.zeros(1, 1, 1), torch.tensor([1])).softmax(dim=1)[0]
        assert share.tolist() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("every_step", [False, True])
def test_several_classes_are_learned(every_step):
    config = replace(TINY, every_step=every_step, decision="last", dropout=0.0, learning_rate=0.05, epochs=15)
    fitted = run(config, classes=3, outputs=3)
    assert fitted.history[-1]["valid_loss"] < 0.9 * fitted.history[0]["valid_loss"]


@pytest.mark.parametrize("behind", [0, 3])
def test_the_loss_of_every_step_is_the_mean_along_the_sequence_plus_the_peak(behind):
    torch.manual_seed(0)
    model = LSTMClassifier(2, hidden=3).eval()
    sequences, label = made(5)
    padded, lengths, _ = sequences.pad(int(sequences.lengths.max()) + behind, value=3.0)
    told = torch.as_tensor(label, dtype=torch.float32)
    weight = torch.tensor([2.5])
    found = loss_of(model, torch.from_numpy(padded), torch.from_numpy(lengths), told, weight, True)
    expected = []
    for index, target in enumerate(told):
        logits = model.every_step(torch.from_numpy(sequences[index])[None])[0]  # (T,)
        losses = functional.binary_cross_entropy_with_logits(
            logits, target.expand(len(logits)), pos_weight=weight, reduction="none"
        )
        share = torch.tensor([min(step, 16) / 16 for step in range(1, len(logits) + 1)])  # early steps count less
        expected.append((losses * share).sum() / share.sum() + losses[logits.argmax()])
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_the_loss_of_every_step_of_several_classes_is_the_mean_along_the_sequence():
    torch.manual_seed(0)
    model = LSTMClassifier(2, hidden=3, outputs=3).eval()
    sequences, label = made(6, classes=3)
    padded, lengths, _ = sequences.pad(9)
    found = loss_of(model, torch.from_numpy(padded), torch.from_numpy(lengths), torch.from_numpy(label), None, True)
    expected = []
    for index, target in enumerate(label):
        chances = model.every_step(torch.from_numpy(sequences[index])[None])[0].softmax(dim=1)  # (T, 3)
        share = torch.arange(1, len(chances) + 1) / 16
        expected.append(-(chances[:, target].log() * share).sum() / share.sum())
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
