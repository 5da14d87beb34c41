"""Confidence intervals against values printed elsewhere and against simulation."""

import numpy as np
import pytest

from unidiff.evaluation.intervals import mean_interval, ratio_interval, wilson_interval


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
