import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedGroupKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from probewatch import ProbewatchError, Ragged, SequenceClassifier
from probewatch.errors import ConfigError, DataError
from probewatch.learn import classifier
from probewatch.learn.given import read_groups

QUICK = {"hidden": 4, "epochs": 8, "learning_rate": 0.05, "dropout": 0.0}


def made(sequences=40, classes=2, features=2, seed=0):
    """Sequences of 1 to 8 steps whose mean tells the class apart, with names for labels."""
    random = np.random.default_rng(seed)
    number = np.arange(sequences) % classes
    X = [random.normal(2.0 * one, 1.0, (random.integers(1, 9), features)) for one in number]
    return X, np.array(["calm", "odd", "wild"])[number]


def as_objects(X):
    array = np.empty(len(X), object)
    array[:] = X
    return array


FORMS = {
    "list": lambda X: X,
    "nested lists": lambda X: [sequence.tolist() for sequence in X],
    "object array": as_objects,
    "Ragged": Ragged.from_list,
}


@pytest.fixture(scope="module", params=[2, 3], ids=["two classes", "three classes"])
def fitted(request):
    X, y = made(classes=request.param)
    return SequenceClassifier(**QUICK).fit(X, y), X, y


def test_it_learns_and_says_what_it_learned(fitted):
    model, X, y = fitted
    assert model.score(X, y) > 0.8
    assert model.classes_.tolist() == sorted(set(y))
    assert model.n_features_in_ == 2
    assert [epoch["epoch"] for epoch in model.history_] == list(range(1, len(model.history_) + 1))
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert model.best_epoch_ == int(np.argmin(losses)) + 1


def test_scores_probabilities_and_predictions_agree(fitted):
    model, X, _ = fitted
    logits, chances = model.decision_function(X), model.predict_proba(X)
    classes = len(model.classes_)
    assert chances.shape == (len(X), classes)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.classes_[chances.argmax(axis=1)])
    if classes == 2:
        assert logits.shape == (len(X),)
        np.testing.assert_allclose(chances[:, 1], 1 / (1 + np.exp(-logits)), atol=1e-12)
    else:
        assert logits.shape == (len(X), classes)
        np.testing.assert_array_equal(chances.argmax(axis=1), logits.argmax(axis=1))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 39), min_size=1, max_size=12), st.integers(1, 3))
def test_a_prediction_does_not_depend_on_the_others(fitted, chosen, longest):
    model, X, _ = fitted
    others = [np.full((300 * longest, 2), 50.0)]  # much longer, and far from all
    together = model.decision_function([X[index] for index in chosen] + others)[:-1]
    for index, logit in zip(chosen, together, strict=True):
        np.testing.assert_allclose(model.decision_function([X[index]])[0], logit, atol=1e-5)


def test_a_prediction_reads_a_sequence_to_its_end(fitted):
    model, X, _ = fitted
    long = np.tile(X[0], (400, 1))
    changed = long.copy()
    changed[-1] += 5.0
    whole, other = model.decision_function([long])[0], model.decision_function([changed])[0]
    assert np.abs(whole - other).max() > 1e-3


def test_very_long_sequences_are_scored_in_smaller_batches(fitted, monkeypatch):
    model, X, _ = fitted
    expected = model.decision_function(X)
    monkeypatch.setattr(classifier, "STEPS_AT_ONCE", 5)
    np.testing.assert_allclose(model.decision_function(X), expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_x_gives_the_same_model_and_scores(form):
    X, y = made()
    X = [sequence.astype(np.float32) for sequence in X]
    expected = SequenceClassifier(**QUICK).fit(X, y).decision_function(X)
    found = SequenceClassifier(**QUICK).fit(form(X), y).decision_function(form(X))
    np.testing.assert_array_equal(found, expected)


def test_a_three_dimensional_array_is_sequences_of_equal_length():
    X = np.random.default_rng(0).normal(size=(20, 3, 2))
    y = np.arange(20) % 2
    expected = SequenceClassifier(**QUICK).fit(list(X), y).decision_function(list(X))
    for form in (X, X.astype(object)):
        np.testing.assert_array_equal(SequenceClassifier(**QUICK).fit(form, y).decision_function(form), expected)


@pytest.mark.parametrize("labels", [[0, 1], [-1, 1], ["no", "yes"], [False, True], [3.0, 7.0]], ids=str)
def test_labels_of_any_kind_come_back(labels):
    X, y = made(20)
    y = np.array(labels)[(y == "odd").astype(int)]
    model = SequenceClassifier(**QUICK).fit(X, y.tolist())
    assert model.classes_.tolist() == sorted(labels)
    assert set(model.predict(X).tolist()) <= set(labels)


@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"layers": 2}, {"every_step": True}, {"scale": False}], ids=str
)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_kind_of_network_learns(options, classes):
    X, y = made(classes=classes)
    assert SequenceClassifier(**QUICK, **options).fit(X, y).score(X, y) > 1.4 / classes


def test_training_scales_by_the_steps_it_learns_from_and_by_no_others():
    X, y = made()
    model = SequenceClassifier(**QUICK).fit(X, y)
    everything = np.concatenate(X)
    assert model.scaler_.n_samples_seen_ < len(everything)
    moved = SequenceClassifier(**QUICK).fit([1e9 + 1e3 * sequence for sequence in X], y)
    np.testing.assert_allclose(  # float64 to the end: at 1e9, float32 knows steps of 64 only
        moved.decision_function([1e9 + 1e3 * sequence for sequence in X]), model.decision_function(X), atol=1e-3
    )


def test_a_constant_feature_and_values_far_from_training_give_finite_scores():
    X, y = made()
    X = [np.column_stack([sequence, np.ones(len(sequence))]) for sequence in X]
    model = SequenceClassifier(**QUICK).fit(X, y)
    assert np.isfinite(model.predict_proba([np.full((3, 3), 3e38), np.full((3, 3), -3e38)])).all()


def test_sequences_of_one_step_are_enough():
    X = [np.full((1, 1), s % 2) for s in range(12)]
    model = SequenceClassifier(**QUICK).fit(X, np.arange(12) % 2)
    assert model.predict(X[:2]).tolist() == [0, 1]


def test_the_same_seed_gives_the_same_scores_and_a_clone_too():
    X, y = made()
    model = SequenceClassifier(**QUICK, random_state=3).fit(X, y)
    for other in (SequenceClassifier(**QUICK, random_state=3), clone(model)):
        np.testing.assert_array_equal(other.fit(X, y).decision_function(X), model.decision_function(X))
        assert other.history_ == model.history_
    other = SequenceClassifier(**QUICK, random_state=4).fit(X, y)
    assert not np.array_equal(other.decision_function(X), model.decision_function(X))


def test_a_random_state_object_is_drawn_from():
    X, y = made(20)
    first, second = (
        SequenceClassifier(**QUICK, random_state=np.random.RandomState(1)).fit(X, y).decision_function(X)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_fitting_and_predicting_change_nothing_that_was_given_or_is_global():
    X, y = made(20)
    before = [sequence.copy() for sequence in X]
    torch.manual_seed(0)
    np.random.seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    SequenceClassifier(**QUICK).fit(X, y).predict(X)
    assert all(np.array_equal(*pair) for pair in zip(X, before, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.get_num_threads() == states[2]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_inner_split_has_every_class_on_both_sides_and_no_group_in_both(data):
    classes = data.draw(st.integers(2, 4))
    sizes = data.draw(st.lists(st.integers(2, 9), min_size=classes, max_size=classes))
    numbers = np.repeat(np.arange(classes), sizes)
    grouped = data.draw(st.booleans())
    # each class has at least two groups of its own; the others may hold any classes
    own = [[-2 * number - 2, -2 * number - 1] for number in range(classes)]
    shared = [data.draw(st.lists(st.integers(0, 5), min_size=size - 2, max_size=size - 2)) for size in sizes]
    groups = np.array([group for pair in zip(own, shared, strict=True) for part in pair for group in part])
    share = data.draw(st.floats(0.05, 0.6))
    settled = classifier.Config(every_step=False, decision="last", valid_share=share)
    train, valid = classifier._hold_out(numbers, list(range(classes)), groups if grouped else None, settled)
    assert sorted([*train, *valid]) == list(range(len(numbers)))
    assert set(numbers[train]) == set(numbers[valid]) == set(range(classes))
    if grouped:
        assert not set(groups[train]) & set(groups[valid])
    else:
        held = np.bincount(numbers[valid])
        wanted = np.minimum(np.maximum(1, np.round(share * np.array(sizes))), np.array(sizes) - 1)
        assert held.tolist() == wanted.tolist()


def test_groups_are_told_apart_by_all_their_digits():
    unique, of = read_groups([2**63 + 1, 10**400, 2**63, 2**63 + 1], 4)
    assert unique.tolist() == [2**63, 2**63 + 1, 10**400]
    assert of.tolist() == [1, 2, 0, 1]


def test_groups_that_hold_all_classes_are_held_out_whole():
    numbers, groups = np.tile([0, 1, 2], 10), np.repeat(np.arange(10), 3)
    settled = classifier.Config(every_step=False, decision="last", valid_share=0.2)
    train, valid = classifier._hold_out(numbers, [0, 1, 2], groups, settled)
    assert (len(set(groups[valid])), len(set(groups[train]))) == (2, 8)


def _bad(index, sequence):
    X, _ = made(20)
    X[index] = sequence
    return X


BAD = {
    "empty": (_bad(3, np.zeros((0, 2))), "sequence 3 is empty, expected at least one step"),
    "empty list": (_bad(0, []), "sequence 0 is empty, expected at least one step"),
    "no features": (_bad(4, np.zeros((3, 0))), "sequence 4 is empty, expected at least one step"),
    "NaN": (_bad(7, [[0.0, 1.0], [np.nan, 1.0]]), "sequence 7 has a value that is not finite at step 1"),
    "infinite": (_bad(7, [[np.inf, 1.0]]), "sequence 7 has a value that is not finite at step 0"),
    "too large": (
        _bad(7, [[0.0, 1.0], [1e300, 1.0]]),
        r"sequence 7 has a value beyond what float32 holds \(3.4e\+38\) at"
        " step 1; divide",
    ),
    "too large for any float": (_bad(7, [[10**400, 1]]), "sequence 7 has a value beyond what a float holds"),
    "wider": (_bad(5, np.zeros((2, 3))), "sequence 5 has 3 features, expected 2"),
    "flat": (_bad(2, [1.0, 2.0]), r"sequence 2 has 1 axes, expected 2: \(steps, features\); X is a list of"),
    "deep": (_bad(2, np.zeros((1, 2, 2))), "sequence 2 has 3 axes, expected 2"),
    "uneven": (_bad(2, [[1.0, 2.0], [3.0]]), "sequence 2 is no array of numbers"),
    "words": (_bad(6, [["a", "b"]]), "sequence 6 is no array of numbers"),
    "nothing": (_bad(6, [[None, {}]]), "sequence 6 is no array of numbers"),
    "complex": (_bad(6, np.ones((2, 2), complex)), "sequence 6 is no array of numbers"),
    "none at all": ([], "there are no input sequences"),
    "one array": (np.zeros((20, 2)), "sequence 0 has 1 axes, expected 2"),
    "a number": (3.0, r"X is a float, expected a list of \(T, F\) arrays"),
}


@pytest.mark.parametrize(("X", "told"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_sequences_that_cannot_be_used_are_named(verb, X, told):
    good, y = made(20)
    model = SequenceClassifier(hidden=1, epochs=1)
    with pytest.raises(DataError, match=told):
        if verb == "fit":
            model.fit(X, y)
        else:
            model.fit(good, y).predict(X)


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (["a"] * 6, "all of y is 'a', expected at least 2 classes"),
        ([0, 0, 0, 0, 0, 1], "class 1 has too few sequences of its own, expected at least 2"),
        ([0, 1, 0, 1], r"y has the shape \(4,\), expected a label for each of the 6 sequences"),
        (0.1 * np.arange(6), "y is continuous, expected classes"),
        ([0, 1, np.nan, 1, 0, 1], "y cannot be used as labels .*NaN"),
        ([[0, 1]] * 6, r"y has the shape \(6, 2\)"),
        ([[0], [0, 1]] * 3, "y cannot be used as labels"),
        ([10**400, 1] * 3, r"y is of mixed kinds, or too large, expected classes: whole numbers below 2\*\*63"),
    ],
)
def test_labels_that_cannot_be_learned_are_told(y, told):
    X, _ = made(6)
    with pytest.raises(DataError, match=told):
        SequenceClassifier(**QUICK).fit(X, y)


def test_one_sequence_is_too_little():
    with pytest.raises(DataError, match="all of y is 'a', expected at least 2 classes"):
        SequenceClassifier().fit([np.ones((3, 2))], ["a"])


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([0, 1, 0, 1, 0, 1], "class 'calm' has too few groups of its own"),
        ([0, 1, 2], r"groups has the shape \(3,\), expected \(6,\)"),
        ([None] * 6, r"groups cannot be told apart \(found None\); give every sequence one, all of them numbers"),
        ([None, 1, 2, 3, 4, 5], r"groups cannot be told apart \(found None, number\)"),
        (["1", 1, 2, 3, 4, 5], r"groups cannot be told apart \(found number, str\)"),
        ([1.5, np.nan, 2, 2, 3, 3], r"groups cannot be told apart \(found NaN, number\)"),
        ([{}] * 6, "groups cannot be told apart .*dict"),
    ],
)
def test_groups_that_cannot_be_cut_are_told(groups, told):
    with pytest.raises(DataError, match=told):
        SequenceClassifier(**QUICK).fit(*made(6), groups=groups)


@pytest.mark.parametrize("verb", ["predict", "predict_proba", "decision_function"])
def test_predicting_before_fitting_is_told(verb):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(SequenceClassifier(), verb)(made(4)[0])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_another_width_than_in_training_is_told(fitted, form):
    with pytest.raises(DataError, match="sequence 0 has 3 features, expected 2, as those that the classifier was fit"):
        fitted[0].predict(form([np.ones((4, 3)), np.ones((2, 3))]))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hidden": 0, "epochs": -1}, "hidden is 0, expected from 1 to 4096; epochs is -1, expected from 1"),
        ({"dropout": "much"}, "dropout is 'much', expected a number"),
        ({"valid_share": 1.0}, "valid_share is 1.0, expected between 0 and 1"),
        ({"bidirectional": True, "every_step": True}, "bidirectional reads a session from its end"),
        ({"device": "tpu"}, "device is 'tpu', expected auto"),
    ],
)
def test_wrong_parameters_are_told_all_at_once_by_fit(options, told):
    model = SequenceClassifier(**options)  # as scikit-learn wants it, the constructor only stores
    with pytest.raises(ConfigError, match=told):
        model.fit(*made(8))


def test_a_failed_fit_leaves_the_fitted_model_as_it_was():
    X, y = made(20)
    model = SequenceClassifier(**QUICK).fit(X, y)
    expected = model.decision_function(X)
    with pytest.raises(ProbewatchError, match="all of y"):
        model.fit([np.ones((2, 5))] * 4, ["z"] * 4)
    np.testing.assert_array_equal(model.decision_function(X), expected)


def test_parameters_are_read_and_set_as_scikit_learn_does():
    model = SequenceClassifier(hidden=7, random_state=5)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(layers=2).get_params()["layers"] == 2
    assert repr(SequenceClassifier(hidden=7)) == "SequenceClassifier(hidden=7)"
    with pytest.raises(ValueError, match="Invalid parameter 'units'"):
        model.set_params(units=3)
    tags = get_tags(model)
    assert (tags.estimator_type, tags.input_tags.two_d_array, tags.input_tags.three_d_array) == (
        "classifier", False, True,
    )  # fmt: skip


def test_a_fitted_model_comes_through_a_process_boundary():
    X, y = made(20)
    model = SequenceClassifier(**QUICK).fit(X, y)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.decision_function(X), model.decision_function(X))


def test_the_losses_are_printed_if_asked_for(capsys):
    SequenceClassifier(**QUICK, verbose=True).fit(*made(20))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 0
    assert lines[0].startswith("epoch 1 of at most 8: train_loss 0.")
    SequenceClassifier(**QUICK).fit(*made(20))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_it_runs_under_cross_val_score(form):
    X, y = made()
    scores = cross_val_score(SequenceClassifier(**QUICK), form(X), y, cv=2, scoring="roc_auc", error_score="raise")
    assert scores.min() > 0.8


@pytest.mark.parametrize(
    "backend",
    ["threading", pytest.param("loky", marks=pytest.mark.slow)],  # processes load torch anew
)
def test_two_jobs_give_the_scores_of_one(backend):
    X, y = made(classes=3)
    model = SequenceClassifier(**QUICK | {"dropout": 0.5})
    alone = cross_val_predict(model, X, y, cv=4, method="decision_function")
    threads = torch.get_num_threads()
    with parallel_config(backend):
        shared = cross_val_predict(model, X, y, cv=4, method="decision_function", n_jobs=2)
    np.testing.assert_allclose(shared, alone, atol=1e-5)
    assert torch.get_num_threads() == threads


def test_it_runs_under_grid_search_by_groups():
    X, y = made()
    groups = np.arange(40) // 4
    search = GridSearchCV(
        SequenceClassifier(**QUICK), {"hidden": np.array([2, 4]), "dropout": np.linspace(0, 0.5, 2)},
        cv=StratifiedGroupKFold(2), error_score="raise",
    )  # fmt: skip
    search.fit(X, y, groups=groups)
    assert search.best_score_ > 0.6
    assert search.predict(X[:3]).shape == (3,)


def test_groups_reach_the_inner_split_by_scikit_learns_routing():
    X, y = made()
    groups = np.arange(40) // 4
    plain = SequenceClassifier(**QUICK)
    by_hand = plain.fit([X[index] for index in range(20, 40)], y[20:], groups=groups[20:]).decision_function(X[:20])
    halves = [(np.arange(20, 40), np.arange(20))]
    with config_context(enable_metadata_routing=True):
        model = SequenceClassifier(**QUICK).set_fit_request(groups=True)
        found = cross_validate(model, X, y, cv=halves, params={"groups": groups}, return_estimator=True)
        routed = found["estimator"][0].decision_function(X[:20])
        cross_validate(model, X, y, cv=GroupKFold(2), params={"groups": groups}, error_score="raise")
    np.testing.assert_array_equal(routed, by_hand)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_it_runs_under_calibration(classes, method):
    X, y = made(60, classes)
    calibrated = CalibratedClassifierCV(SequenceClassifier(**QUICK), method=method, cv=2).fit(X, y)
    chances = calibrated.predict_proba(X)
    assert chances.shape == (60, classes)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-9)
    assert np.mean(calibrated.predict(X) == y) > 0.6


def _differences(X):
    return [np.diff(sequence, axis=0, prepend=sequence[:1]) for sequence in X]


def _as_list(X):
    return list(X)


@pytest.mark.parametrize("change", [_differences, _as_list])
def test_it_runs_in_a_pipeline_behind_a_function_over_lists(change):
    X, y = made(20)
    pipe = make_pipeline(FunctionTransformer(change), SequenceClassifier(**QUICK))
    expected = SequenceClassifier(**QUICK).fit(change(X), y).predict_proba(change(X))
    np.testing.assert_array_equal(clone(pipe).fit(X, y).predict_proba(X), expected)
    pipe.set_params(sequenceclassifier__hidden=2)
    assert cross_val_score(pipe, as_objects(X), y, cv=2, error_score="raise").shape == (2,)


def test_a_class_that_is_too_rare_for_a_fold_fails_that_fold_with_the_sentence():
    X, y = made(20)
    y = np.where(np.arange(20) < 3, "odd", "calm")
    with pytest.raises(DataError, match="class 'odd' has too few sequences"):
        cross_val_score(SequenceClassifier(**QUICK), X, y, cv=[(np.arange(2, 20), np.arange(2))], error_score="raise")
