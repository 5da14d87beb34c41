"""Confidence intervals against values printed elsewhere and against simulation."""

import numpy as np
import pytest

from unidiff.evaluation.intervals import (
    mean_interval,
    paired_difference,
    ratio_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_gives_newcombes_printed_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_symmetric_in_success_and_failure():
    low, high = wilson_interval(7, 10)
    assert wilson_interval(3, 10) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes <= trials"):
        wilson_interval(successes, trials)


def test_mean_interval_is_1_96_standard_errors_wide():
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (low + high) / 2 == pytest.approx(2.5)
    assert high - low == pytest.approx(2 * 1.959964 * np.std([1, 2, 3, 4], ddof=1) / 2)
    assert mean_interval([3.0]) == (3.0, 3.0)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_ratio_interval_covers_the_true_ratio_in_about_95_percent_of_samples():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        sizes = rng.uniform(1, 3, 80)
        low, high = ratio_interval(2.0 * sizes + rng.normal(0, 0.5, 80), sizes)
        hits += low <= 2.0 <= high
    assert 920 <= hits <= 975


def test_ratio_interval_of_one_unit_is_the_ratio_itself():
    assert ratio_interval(np.array([6.0]), np.array([3.0])) == (2.0, 2.0)


def pairs(won, lost, total):
    """Scores of which so many are won and lost against the reference."""
    scores, reference = np.zeros(total), np.zeros(total)
    scores[:won] = 1.0
    reference[won : won + lost] = 1.0
    return scores, reference


def test_a_paired_difference_equals_bonett_and_prices_interval_by_hand():
    found = paired_difference(*pairs(won=10, lost=4, total=50))
    assert found.mean == pytest.approx(6 / 50)
    # (10 + 1) / 52 - (4 + 1) / 52 = 0.115385; variance (16 / 52 - (6 / 52)^2) / 52 = 0.0056611
    assert found.lower_bound == pytest.approx(0.115385 - 1.644854 * 0.0752401, abs=1e-5)
    assert found.num_inputs == 50


def test_inputs_on_which_both_agree_do_not_widen_a_paired_difference():
    alone = paired_difference(np.array([1.0] * 900 + [0.0] * 100), np.array([1.0] * 1000))
    assert alone.mean == pytest.approx(-0.1)
    shifted = paired_difference(np.full(1000, 0.4), np.full(1000, 0.6))
    assert shifted.mean == pytest.approx(-0.2)
    assert shifted.lower_bound == pytest.approx(-0.2, abs=0.003)


def test_a_paired_difference_without_any_difference_still_has_a_width():
    same = np.ones(2000)
    found = paired_difference(same, same)
    assert found.mean == 0.0
    assert found.lower_bound == pytest.approx(-1.644854 * np.sqrt(2) / 2002, rel=1e-6)


@pytest.mark.parametrize(("gain", "loss"), [(0.005, 0.005), (0.03, 0.05), (0.1, 0.08)])
def test_the_lower_bound_of_a_paired_difference_is_below_the_truth_19_times_in_20(gain, loss):
    rng = np.random.default_rng(5)
    num_trials, total, misses = 2000, 400, 0
    for _ in range(num_trials):
        kind = rng.choice(3, size=total, p=[gain, loss, 1 - gain - loss])
        found = paired_difference((kind == 0) * 1.0, (kind == 1) * 1.0)
        misses += found.lower_bound > gain - loss
    error = np.sqrt(0.05 * 0.95 / num_trials)
    assert misses / num_trials <= 0.05 + 4 * error


@pytest.mark.parametrize(
    ("scores", "reference", "message"),
    [
        ([1.0], [1.0, 0.0], "same inputs"),
        ([], [], "at least one"),
        ([[1.0]], [[1.0]], "two vectors"),
        ([1.5], [1.0], r"scores must be in \[0, 1\]"),
        ([float("nan")], [1.0], r"scores must be in \[0, 1\]"),
    ],
)
def test_scores_that_are_no_pairs_are_refused(scores, reference, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(np.array(scores), np.array(reference))
