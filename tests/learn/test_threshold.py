import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import beta

from probewatch.errors import ConfigError, DataError
from probewatch.learn.networks import _calibrate
from probewatch.learn.threshold import attained, pick_threshold, supports

budgets = st.floats(0.05, 0.95)
score_arrays = hnp.arrays(np.float64, st.integers(60, 200), elements=st.floats(-1e6, 1e6))


def test_three_of_three_hundred_may_alert_at_one_percent():
    scores = np.random.default_rng(0).permutation(np.arange(300) / 300)
    threshold = pick_threshold(scores, 0.01)
    assert np.sort(scores[scores >= threshold]).tolist() == [297 / 300, 298 / 300, 299 / 300]


def test_the_interval_of_a_rate_is_clopper_and_pearsons():
    """3 of 100, from the beta distribution: the quantiles 0.025 of B(3, 98) and 0.975 of B(4, 97)."""
    found = attained(np.arange(100.0), 97.0)
    assert (found["benign"], found["alerts"], found["fpr"]) == (100, 3, 0.03)
    np.testing.assert_allclose(found["interval"], [beta.ppf(0.025, 3, 98), beta.ppf(0.975, 4, 97)], rtol=1e-9)
    assert attained(np.arange(100.0), 100.0)["interval"] == [0.0, pytest.approx(1 - 0.025**0.01)]
    assert attained(np.zeros(0), 0.5)["interval"] is None


def test_sessions_of_equal_score_alert_together_or_not_at_all():
    scores = np.array([0.9] * 4 + [0.1] * 296)
    assert np.sum(scores >= pick_threshold(scores, 0.01)) == 0


def test_scores_that_reach_one_leave_a_threshold_above_one():
    assert pick_threshold(np.ones(300), 0.01) > 1


@given(score_arrays, budgets)
def test_the_budget_is_kept_and_the_next_lower_score_would_break_it(scores, max_fpr):
    threshold = pick_threshold(scores, max_fpr)
    assert np.mean(scores >= threshold) <= max_fpr
    silent = scores[scores < threshold]
    assert np.mean(scores >= silent.max()) > max_fpr


@given(hnp.arrays(np.float32, st.integers(60, 200), elements=st.floats(0, 1, width=32)), budgets)
def test_the_budget_holds_whichever_precision_compares(scores, max_fpr):
    threshold = pick_threshold(scores, max_fpr)
    assert np.array_equal(scores >= threshold, scores.astype(np.float64) >= np.float64(threshold))


@given(st.integers(1, 3000), st.sampled_from([0.3, 0.1, 0.03, 0.01, 0.003, 0.001]))
def test_a_budget_needs_three_benign_sessions_over_itself(benign, max_fpr):
    assert supports(benign, max_fpr) == (round(benign * max_fpr, 9) >= 3)


def test_a_budget_too_small_to_support_is_refused():
    with pytest.raises(DataError, match="at least 300 benign sessions to measure it on, found 299"):
        pick_threshold(np.zeros(299), 0.01)


def test_the_refusal_names_a_budget_that_works():
    with pytest.raises(DataError, match=r"raise the budget to 0\.0101\."):
        pick_threshold(np.arange(299.0), 0.01)
    assert np.isfinite(pick_threshold(np.arange(299.0), 0.0101))


def test_no_benign_sessions_are_refused():
    with pytest.raises(DataError, match=r"found 0; add benign sessions\."):
        pick_threshold(np.zeros(0), 0.01)


@pytest.mark.parametrize("max_fpr", [0.0, 1.0, -0.1, float("nan")])
def test_a_budget_that_is_no_rate_is_refused(max_fpr):
    with pytest.raises(ConfigError, match="expected a rate above 0 and below 1"):
        pick_threshold(np.zeros(300), max_fpr)


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="1 of 300 benign scores are not finite"):
        pick_threshold(np.array([np.nan] + [0.0] * 299), 0.01)


def test_scores_beyond_float32_get_a_threshold_too():
    scores = np.linspace(1e300, 2e300, 300)
    assert np.sum(scores >= pick_threshold(scores, 0.01)) == 3


def test_scores_told_apart_without_an_error_are_not_certain():
    """Platt's targets: 31 of 32 for each of 30 attacks, 1 of 62 for each of 60 benign sessions."""
    held, label = np.repeat([3.0, -2.0, np.nan], [30, 60, 9]), np.repeat([1, 0, 0], [30, 60, 9]).astype(np.int8)
    slope, intercept = _calibrate(held, label)
    assert slope * 3.0 + intercept == pytest.approx(np.log(31), rel=1e-3)
    assert slope * -2.0 + intercept == pytest.approx(-np.log(61), rel=1e-3)


def test_where_kinds_overlap_scores_are_probabilities():
    random = np.random.default_rng(0)
    logits = random.normal(scale=2.0, size=20_000)
    label = (random.random(20_000) < 1.0 / (1.0 + np.exp(-(0.7 * logits - 0.4)))).astype(np.int8)
    assert _calibrate(logits, label) == pytest.approx((0.7, -0.4), abs=0.05)
