"""How sure a measured number is: confidence intervals at 95 %."""

import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


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
