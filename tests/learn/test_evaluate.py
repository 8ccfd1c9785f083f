import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as standard
from sklearn.calibration import calibration_curve

from probewatch.errors import DataError
from probewatch.learn.bootstrap import _figures, client_intervals
from probewatch.learn.evaluate import evaluate, tpr_at_fpr

FLAT = {
    *("n", "loss", "accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "threshold"),
    *("tpr_at_fpr_0.01", "tpr_at_fpr_0.001", "tpr_at_threshold", "fpr_at_threshold"),
    *("confusion_matrix", "families", "delay", "intervals", "allowed"),
}


def example(sessions=400, seed=0, clients=80):
    rng = np.random.default_rng(seed)
    client = rng.integers(clients, size=sessions)
    label = (client % 4 == 0).astype(np.int8)
    score = 1 / (1 + np.exp(-rng.normal(3 * label - 1.5, 1.2)))
    return {"label": label, "score": score, "client": np.array([f"client-{code}" for code in client], object)}


@st.composite
def cases(draw):
    rows = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 5)), min_size=1, max_size=60))
    label, score, client = zip(*rows, strict=True)
    return np.array(label), np.array(score) / 12, np.array([f"c{code}" for code in client], object)


def test_every_key_that_is_promised_is_there():
    found = evaluate(**example(), threshold=0.5)
    assert set(found) >= FLAT


def test_figures_worked_out_by_hand():
    found = evaluate(
        np.array([0, 0, 0, 0, 1, 1, 1, 1]),
        np.array([0.1, 0.2, 0.3, 0.8, 0.2, 0.7, 0.8, 0.9]),
        threshold=0.7,
        client=np.array(list("abcdefgh")),
        first_alert=np.array([0, 0, 0, 5, 0, 9, 2, 4]),
        family=np.array(["person", "person", "job", "job", "lira", "lira", "shadow", "shadow"]),
    )
    assert found["confusion_matrix"] == [[3, 1], [1, 3]]
    assert (found["accuracy"], found["balanced_accuracy"]) == (0.75, 0.75)
    assert (found["precision"], found["recall"], found["f1"]) == (0.75, 0.75, 0.75)
    assert found["per_class"]["benign"] == {"precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    # Of 16 pairs: 0.9 wins 4, 0.8 wins 3 and ties 1, 0.7 wins 3, 0.2 wins 1 and ties 1.
    assert found["roc_auc"] == 12 / 16
    assert (found["tpr_at_threshold"], found["fpr_at_threshold"]) == (0.75, 0.25)
    assert found["families"] == {
        "job": {"n": 2, "rate": 0.5, "malicious": False},
        "lira": {"n": 2, "rate": 0.5, "malicious": True},
        "person": {"n": 2, "rate": 0.0, "malicious": False},
        "shadow": {"n": 2, "rate": 1.0, "malicious": True},
    }
    assert found["delay"] == {"median": 6.5, "p90": None}
    assert (found["n"], found["n_attacks"], found["n_benign"], found["prevalence"]) == (8, 4, 4, 0.5)


def test_figures_agree_with_scikit_learn():
    case = example()
    label, score = case["label"], case["score"]
    found = evaluate(**case, threshold=0.4)
    assert found["loss"] == pytest.approx(standard.log_loss(label, score))
    assert found["brier"] == pytest.approx(standard.brier_score_loss(label, score))
    assert found["average_precision"] == pytest.approx(standard.average_precision_score(label, score))
    assert found["f1"] == pytest.approx(standard.f1_score(label, score >= 0.4))
    fpr, tpr, _ = standard.roc_curve(label, score, drop_intermediate=False)
    assert found["tpr_at_fpr_0.01"] == pytest.approx(tpr[fpr <= 0.01].max())


PROBABILITIES = ("loss", "brier", "calibration", "probability_share")


def moved(score, prior, share):
    """Scores that are probabilities at a ``share`` of attacks, as such at a ``prior``."""
    odds = score / (1 - score) * prior / (1 - prior) * (1 - share) / share
    return odds / (1 + odds)


def test_calibration_is_scikit_learns():
    case = example()
    found = evaluate(**case, threshold=0.4, intervals=False)["calibration"]
    observed, predicted = calibration_curve(case["label"], case["score"], n_bins=10, strategy="quantile")
    assert found["observed"] == pytest.approx(observed)
    assert found["predicted"] == pytest.approx(predicted)


@pytest.mark.parametrize("prior", [0.02, 0.5])
def test_scores_that_are_right_at_a_stated_share_of_attacks_are_found_right_there(prior):
    rng = np.random.default_rng(0)
    score = rng.beta(0.6, 0.9, size=40_000)
    label = (rng.random(len(score)) < score).astype(int)
    elsewhere = moved(score, prior, label.mean())
    found = evaluate(label, elsewhere, threshold=0.5, client=label, prior=prior, intervals=False)
    for predicted, observed in zip(*found["calibration"].values(), strict=True):
        assert observed == pytest.approx(predicted, abs=0.02)
    weight = np.where(label == 1, prior / label.mean(), (1 - prior) / (1 - label.mean()))
    assert found["brier"] == pytest.approx(np.average((elsewhere - label) ** 2, weights=weight))
    assert found["loss"] == pytest.approx(
        np.average(-np.log(np.where(label == 1, elsewhere, 1 - elsewhere)), weights=weight)
    )
    for wrong in (moved(score, prior / 2, label.mean()), score):  # the losses are lowest for what is right there
        other = evaluate(label, wrong, threshold=0.5, client=label, prior=prior, intervals=False)
        assert found["loss"] < other["loss"]
        assert found["brier"] < other["brier"]


def test_a_stated_share_of_attacks_moves_probabilities_alone():
    case = example()
    at = (evaluate(**case, threshold=0.5, prior=prior) for prior in (None, 0.01))
    plain, rare = ({name: one[name] for name in one if name not in PROBABILITIES} for one in at)
    assert plain == rare
    share = case["label"].mean()
    own = evaluate(**case, threshold=0.5, prior=share, intervals=False)
    assert own["probability_share"] == share
    assert own["brier"] == pytest.approx(standard.brier_score_loss(case["label"], case["score"]))


def test_one_class_tells_nothing_of_probabilities_at_another_share():
    found = evaluate(np.zeros(4), np.full(4, 0.2), threshold=0.5, client=np.arange(4), prior=0.1)
    assert (found["loss"], found["brier"], found["calibration"]) == (None, None, None)


def test_a_given_loss_is_kept_and_given_losses_are_averaged():
    case = example()
    assert evaluate(**case, threshold=0.5, loss=0.123, intervals=False)["loss"] == 0.123
    losses = np.arange(400.0)
    assert evaluate(**case, threshold=0.5, loss=losses, intervals=False)["loss"] == np.mean(losses)
    assert evaluate(**case, threshold=0.5, loss=float("nan"), intervals=False)["loss"] is None


@pytest.mark.parametrize(("percent_alerted", "expected"), [(50, (None, None)), (51, (7, None)), (90, (7, 7))])
def test_a_missed_attack_counts_as_never(percent_alerted, expected):
    first_alert = np.where(np.arange(100) < percent_alerted, 7, 0)
    found = evaluate(np.ones(100), np.full(100, 0.5), threshold=0.5, client=np.arange(100), first_alert=first_alert)
    assert (found["delay"]["median"], found["delay"]["p90"]) == expected


@pytest.mark.parametrize(
    ("first_alert", "expected"),
    [
        ([1, 2, 3, 4], {"median": 2.5, "p90": 4}),
        ([4, 2, 6, 0], {"median": 5, "p90": None}),
        ([4, 2, 0, 0], {"median": None, "p90": None}),
        ([9, 0, 1], {"median": 9, "p90": None}),
        (list(range(1, 11)), {"median": 5.5, "p90": 9}),
    ],
)
def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two(first_alert, expected):
    attacks = len(first_alert)
    found = evaluate(
        np.ones(attacks), np.full(attacks, 0.5), threshold=0.5, client=np.arange(attacks), first_alert=first_alert
    )
    assert found["delay"] == expected


def test_without_first_alerts_there_is_no_delay():
    assert evaluate(**example(), threshold=0.5, intervals=False)["delay"] is None


def test_allow_listed_sessions_count_in_their_own_row_and_nowhere_else():
    case = example()
    plain = evaluate(**case, threshold=0.5)
    added = {
        "label": np.concatenate([case["label"], [0, 0, -1, 1]]),
        "score": np.concatenate([case["score"], [0.9, 0.95, 0.2, 0.99]]),
        "client": np.concatenate([case["client"], ["rescorer"] * 4]),
    }
    found = evaluate(**added, threshold=0.5, allowed=np.arange(404) >= 400)
    assert found.pop("allowed") == {"n": 4, "rate": 0.75}
    assert plain.pop("allowed") == {"n": 0, "rate": None}
    assert found == plain


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("probabilities", [True, False])
def test_one_class_leaves_nulls_and_no_exception(label, probabilities):
    found = evaluate(
        np.full(400, label),
        np.linspace(0, 1, 400),
        threshold=0.5,
        client=np.arange(400) % 40,
        family=np.full(400, "x"),
        first_alert=np.zeros(400),
        probabilities=probabilities,
    )
    for name in ("roc_auc", "average_precision", "balanced_accuracy", "tpr_at_fpr_0.01", "calibration"):
        assert found[name] is None
    assert found["accuracy"] == 0.5
    assert found["intervals"]["roc_auc"] is None
    assert found["intervals"]["accuracy"] is not None
    json.dumps(found, allow_nan=False)


def test_no_session_at_all_leaves_nulls_and_no_exception():
    found = evaluate(np.zeros(0), np.zeros(0), threshold=0.5, client=np.zeros(0))
    assert (found["n"], found["accuracy"], found["roc_auc"]) == (0, None, None)
    json.dumps(found, allow_nan=False)


def test_rivals_scores_need_not_be_probabilities():
    case = example()
    case["score"] = 1000 * case["score"] - 300
    found = evaluate(**case, threshold=200.0, probabilities=False)
    assert (found["loss"], found["brier"], found["calibration"]) == (None, None, None)
    assert found["roc_auc"] == evaluate(**example(), threshold=0.5)["roc_auc"]


def test_a_small_benign_sample_gives_no_rate_that_it_cannot_support():
    label = np.repeat([0, 1], [299, 50])
    score = np.linspace(0, 1, 349)
    assert tpr_at_fpr(label, score, 0.01) is None
    assert tpr_at_fpr(np.append(label, 0), np.append(score, 0.0), 0.01) == 1.0


@given(
    st.lists(st.integers(0, 20), min_size=30, max_size=80),
    st.lists(st.integers(0, 20), min_size=1, max_size=40),
)
def test_tpr_at_fpr_is_the_best_of_all_thresholds_within_the_budget(benign, attacks):
    label, score = np.repeat([0, 1], [len(benign), len(attacks)]), np.array(benign + attacks, float)
    within = [t for t in range(22) if np.mean(np.array(benign) >= t) <= 0.1]
    assert tpr_at_fpr(label, score, 0.1) == max(np.mean(np.array(attacks) >= t) for t in within)


@settings(deadline=None, max_examples=25)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_sessions_does_not_matter(case, random):
    label, score, client = case
    order = np.array(random.sample(range(len(label)), len(label)))
    straight = evaluate(label, score, threshold=0.5, client=client, family=client, first_alert=label)
    shuffled = evaluate(
        label[order],
        score[order],
        threshold=0.5,
        client=client[order],
        family=client[order],
        first_alert=label[order],
    )
    assert json.dumps(straight["families"]) == json.dumps(shuffled["families"])
    for name, value in straight.items():
        if isinstance(value, float):
            assert shuffled[name] == pytest.approx(value)
        elif name not in ("calibration", "per_class", "intervals"):
            assert shuffled[name] == value
    for name, interval in straight["intervals"].items():
        assert (interval is None) == (shuffled["intervals"][name] is None)
        if interval:
            assert shuffled["intervals"][name] == pytest.approx(interval)


@settings(deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_resampled_figures_are_scikit_learns_on_the_repeated_sessions(case, seed):
    label, score, _ = case
    falling = np.argsort(-score, kind="stable")
    label, score = label[falling], score[falling]
    times = np.random.default_rng(seed).integers(0, 4, len(label))
    drawn_label, drawn_score = np.repeat(label, times), np.repeat(score, times)
    found = {name: value[0] for name, value in _figures(times[None].astype(float), label, score, 0.5).items()}
    if len(np.unique(drawn_label)) == 2:
        assert found["roc_auc"] == pytest.approx(standard.roc_auc_score(drawn_label, drawn_score))
        expected = standard.average_precision_score(drawn_label, drawn_score)
        assert found["average_precision"] == pytest.approx(expected)
        fpr, tpr, _ = standard.roc_curve(drawn_label, drawn_score, drop_intermediate=False)
        assert found["tpr_at_fpr_0.01"] == pytest.approx(tpr[fpr <= 0.01].max())
    else:
        assert np.isnan(found["roc_auc"])
    for code, name in ((1, "tpr_at_threshold"), (0, "fpr_at_threshold")):
        chosen = drawn_score[drawn_label == code] >= 0.5
        assert found[name] == pytest.approx(np.mean(chosen) if len(chosen) else np.nan, nan_ok=True)
    if len(drawn_label):
        assert found["accuracy"] == pytest.approx(np.mean((drawn_score >= 0.5) == drawn_label))


@pytest.mark.parametrize("seed", range(5))
def test_intervals_hold_the_figure_itself(seed):
    found = evaluate(**example(sessions=500, seed=seed), threshold=0.4)
    for name, (low, high) in found["intervals"].items():
        assert low <= found[name] <= high
        assert 0 < high - low < 0.6


def test_sessions_of_one_client_make_intervals_wider_than_independent_ones():
    rng = np.random.default_rng(1)
    client = np.repeat(np.arange(40), 25)
    label = (client % 2).astype(np.int64)
    score = 1 / (1 + np.exp(-(rng.normal(size=40)[client] + label)))

    def width(clients):
        low, high = client_intervals(label, score, clients, 0.5)["roc_auc"]
        return high - low

    assert width(client) > 2 * width(np.arange(1000))


def apart(attackers=8, benign=20, each=5):
    """Sessions of clients whose classes no score confuses."""
    label = np.repeat(np.arange(attackers + benign) < attackers, each).astype(int)
    return {"label": label, "score": 0.1 + 0.8 * label, "client": np.repeat(np.arange(attackers + benign), each)}


def test_rates_of_none_and_all_have_the_exact_interval_of_their_actors():
    found = evaluate(**apart(), threshold=0.5)
    assert (found["tpr_at_threshold"], found["fpr_at_threshold"], found["accuracy"]) == (1, 0, 1)
    # none of n at 95 %, two-sided: the rate at which none has a chance of 2.5 %
    assert found["intervals"]["fpr_at_threshold"] == pytest.approx([0, 1 - 0.025 ** (1 / 20)])
    assert found["intervals"]["tpr_at_threshold"] == pytest.approx([0.025 ** (1 / 8), 1])
    assert found["intervals"]["accuracy"] == pytest.approx([0.025 ** (1 / 28), 1])
    silent = evaluate(**apart(), threshold=0.95)
    assert silent["intervals"]["tpr_at_threshold"] == pytest.approx([0, 1 - 0.025 ** (1 / 8)])


def test_all_caught_at_one_percent_has_no_interval_narrower_than_that_of_its_actors():
    case = apart(attackers=8, benign=100)
    found = evaluate(**case, threshold=0.5)
    assert found["tpr_at_fpr_0.01"] == 1
    assert found["intervals"]["tpr_at_fpr_0.01"] == pytest.approx([0.025 ** (1 / 8), 1])


@pytest.mark.parametrize(("attackers", "benign"), [(2, 2), (8, 20), (20, 50), (100, 300)])
def test_a_perfect_roc_auc_has_newcombes_lower_bound_and_average_precision_none(attackers, benign):
    found = evaluate(**apart(attackers, benign), threshold=0.5)
    low, high = found["intervals"]["roc_auc"]
    assert (found["roc_auc"], high, found["intervals"]["average_precision"]) == (1, 1, None)
    share = (attackers + benign) / 2 - 1
    variance = low * (1 - low) * (1 + share * (1 - low) / (2 - low) + share * low / (1 + low)) / (attackers * benign)
    assert (1 - low) / np.sqrt(variance) == pytest.approx(1.959964, rel=1e-6)
    case = apart(attackers, benign)
    swapped = evaluate(**{**case, "score": 1 - case["score"]}, threshold=0.5)
    assert swapped["intervals"]["roc_auc"] == pytest.approx([0, 1 - low])


def test_a_perfect_average_precision_whose_sum_ends_beside_one_has_no_interval():
    case = apart(26, 34, each=1)
    found = evaluate(**{**case, "score": case["score"] + np.linspace(0, 0.05, 60)}, threshold=0.5)
    assert 1 - 1e-12 < found["average_precision"] < 1
    assert found["intervals"]["average_precision"] is None


def test_one_client_of_a_class_says_nothing_of_how_much_that_class_varies():
    label = np.repeat([0, 1], [300, 10])
    client = np.where(label == 1, "attacker", np.arange(310).astype(str))
    found = evaluate(label, np.linspace(0, 1, 310), threshold=0.9, client=client)
    assert found["tpr_at_threshold"] is not None
    assert found["intervals"]["tpr_at_threshold"] is None
    assert found["intervals"]["fpr_at_threshold"] is not None


def test_the_same_seed_gives_the_same_intervals():
    first, second, other = (evaluate(**example(), threshold=0.5, seed=seed)["intervals"] for seed in (7, 7, 8))
    assert first == second != other


def test_a_family_with_both_labels_is_two_rows():
    found = evaluate(
        np.array([0, 1, 1]),
        np.array([0.1, 0.9, 0.2]),
        threshold=0.5,
        client=np.arange(3),
        family=["x", "x", ""],
    )
    assert found["families"] == {
        "unnamed": {"n": 1, "rate": 0.0, "malicious": True},
        "x (attack)": {"n": 1, "rate": 1.0, "malicious": True},
        "x (benign)": {"n": 1, "rate": 0.0, "malicious": False},
    }


def test_names_that_differ_by_a_trailing_nul_are_different_clients():
    case = example()
    case["client"] = np.array(["a", "a\0"] * 200, object)
    assert evaluate(**case, threshold=0.5, intervals=False)["n_clients"] == 2


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"score": np.full(400, 1.7)}, "scores go from 1.7 to 1.7, expected probabilities"),
        ({"score": np.full(400, np.nan)}, "400 of 400 scores are not finite"),
        ({"label": np.full(400, -1)}, "400 of 400 labels are not 0 or 1"),
        ({"client": np.array(["a"])}, "client has 1 entries, expected one for each of 400 scores"),
        ({"allowed": np.array([True])}, "allowed has 1 entries"),
    ],
)
def test_columns_that_do_not_fit_are_refused(changed, sentence):
    with pytest.raises(DataError, match=sentence):
        evaluate(**{**example(), **changed}, threshold=0.5)


def test_arguments_are_left_as_they_were():
    case = example()
    copies = {name: column.copy() for name, column in case.items()}
    evaluate(**case, threshold=0.5)
    for name, column in case.items():
        assert np.array_equal(column, copies[name])


def test_intervals_resample_who_is_behind_several_clients():
    """Four keys of one attacker are one draw: the interval is that of the attackers, and the clients stay counted."""
    case = example()
    owner = np.arange(len(case["client"])) // 4
    found = evaluate(**case, actor=owner.astype(str), threshold=0.5)
    assert found["intervals"] == evaluate(**{**case, "client": owner.astype(str)}, threshold=0.5)["intervals"]
    assert found["n_clients"] == evaluate(**case, threshold=0.5)["n_clients"]
