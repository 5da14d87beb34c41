"""How sure a measured number is: confidence intervals at 95 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
Z_95_ONE_SIDED = 1.6448536269514722  # 95 % quantile


def wilson_interval(num_successes: int, num_trials: int, z: float = Z_95) -> tuple[float, float]:
    """Bounds of a success probability, sensible near 0 and 1 too.

    Args:
        num_successes: trials that succeeded.
        num_trials: all trials, at least 1.
        z: quantile of the standard normal distribution; 1.96 gives 95 %.

    Raises:
        ValueError: if there are no trials, or more successes than trials.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference";
        checked in tests/evaluation/test_intervals.py against printed values.
    """
    if num_trials < 1 or not 0 <= num_successes <= num_trials:
        raise ValueError(
            f"expected 0 <= successes <= trials and at least one trial, got {num_successes} of "
            f"{num_trials}"
        )
    share = num_successes / num_trials
    scale = 1.0 + z * z / num_trials
    centre = share + z * z / (2 * num_trials)
    spread = z * math.sqrt(share * (1 - share) / num_trials + (z / (2 * num_trials)) ** 2)
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_interval(values: Sequence[float] | np.ndarray, z: float = Z_95) -> tuple[float, float]:
    """Bounds of a mean by its standard error; a single value is its own interval.

    Raises:
        ValueError: if there is no value.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("a mean needs at least one value, got none")
    spread = z * array.std(ddof=1) / math.sqrt(array.size) if array.size > 1 else 0.0
    return float(array.mean() - spread), float(array.mean() + spread)


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, z: float = Z_95
) -> tuple[float, float]:
    """Bounds of sum(numerators) / sum(denominators) over independent units, such as windows.

    Args:
        numerators: (N,) one number per unit, such as nats.
        denominators: (N,) one number > 0 per unit, such as bytes.
        z: quantile of the standard normal distribution.

    Source: linearised variance of a ratio (Cochran 1977, "Sampling Techniques", section 2.11).
    """
    ratio = numerators.sum() / denominators.sum()
    residual = numerators - ratio * denominators
    count = len(residual)
    if count < 2:
        return float(ratio), float(ratio)
    error = residual.std(ddof=1) / math.sqrt(count) / denominators.mean()
    return float(ratio - z * error), float(ratio + z * error)


@dataclass(frozen=True)
class PairedDifference:
    """How much better one setting does than another on the same inputs.

    Attributes:
        mean: mean difference of the scores.
        lower_bound: one-sided 95 % bound below the expected difference.
        num_inputs: pairs.
    """

    mean: float
    lower_bound: float
    num_inputs: int


def paired_difference(
    scores_N: np.ndarray, reference_N: np.ndarray, z: float = Z_95_ONE_SIDED
) -> PairedDifference:
    """Difference of two settings' scores on the same inputs, and its lower bound.

    The bound is the normal one for the mean of the differences after two more inputs, one won and
    one lost by a whole point of 1. For scores of 0 and 1 that is Bonett and Price's adjusted
    interval: unlike the plain one it does not collapse where hardly any input differs.

    Args:
        scores_N: (N,) scores in [0, 1].
        reference_N: (N,) scores of the reference on the same inputs, in [0, 1].
        z: quantile of the standard normal distribution.

    Raises:
        ValueError: if the shapes differ, there is no input, or a score is outside [0, 1].

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
        proportions based on paired data"; checked in tests/evaluation/test_intervals.py by hand and
        by the coverage of simulated pairs.
    """
    scores = np.asarray(scores_N, dtype=np.float64)
    reference = np.asarray(reference_N, dtype=np.float64)
    if scores.shape != reference.shape or scores.ndim != 1 or scores.size == 0:
        raise ValueError(
            "paired scores must be two vectors of the same inputs, at least one, got shapes "
            f"{scores.shape} and {reference.shape}"
        )
    for values in (scores, reference):
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(f"scores must be in [0, 1], got {values.min()} to {values.max()}")
    difference = scores - reference
    padded = np.concatenate([difference, [1.0, -1.0]])
    error = padded.std() / math.sqrt(padded.size)
    return PairedDifference(
        mean=float(difference.mean()),
        lower_bound=float(padded.mean() - z * error),
        num_inputs=len(difference),
    )
