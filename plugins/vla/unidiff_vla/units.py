"""Whether numbers can be in the units of a range: what lies too far out is told, not clipped."""

# Shapes: N rows, D dimensions.

from typing import Any

import numpy as np

_MOST_SPREADS = 100.0


def is_far_outside(bins: Any, values: np.ndarray, num_widths: float = 1.0) -> np.ndarray:
    """(..., D) bool, where values lie further outside a range than so many of its widths.

    A dimension that is constant in the data reaches nowhere: there nothing is far.

    Args:
        bins: an `ActionTokenizer`.
        values: (..., D).
        num_widths: how far is far.
    """
    low, high = np.array(bins.low), np.array(bins.high)
    reach = np.where(high > low, num_widths * (high - low), np.inf)
    return np.asarray((values < low - reach) | (values > high + reach))


def check_units(name: str, bins: Any, values: np.ndarray) -> None:
    """Raise ValueError if values lie further outside the checkpoint's range than it is wide.

    Args:
        name: of the values.
        bins: an `ActionTokenizer`.
        values: (..., D).
    """
    if values.shape[-1:] != (bins.dim,) or not np.isfinite(values).all():
        return  # said where they are coded
    if is_far_outside(bins, values).any():
        raise ValueError(
            f"{name} {values.reshape(-1, bins.dim)[0].tolist()} is far outside the checkpoint's "
            f"range, {list(bins.low)} to {list(bins.high)}, and would be clipped: other units? "
            "`unidiff train-policy` and the lerobot route fit ranges of their own"
        )


def is_absurd(values: np.ndarray) -> np.ndarray:
    """(N, D) bool, where single numbers are so far from the others that no range can hold both.

    The others are those between the 1st and the 99th percentile, of which the highest and the
    lowest number are never one. Absurd is what lies 100 times their spread beyond them, and also
    the widest dimension's spread: a gripper that rarely moves is none.

    Args:
        values: (N, D) finite numbers.
    """
    array = np.asarray(values, dtype=np.float64)
    low = np.quantile(array, 0.01, axis=0, method="higher")
    high = np.quantile(array, 0.99, axis=0, method="lower")
    spread = np.maximum(high - low, 0.0)
    if not spread.any():
        return np.zeros(array.shape, dtype=bool)
    reach = np.maximum(_MOST_SPREADS * spread, spread.max())
    return (array < low - reach) | (array > high + reach)
