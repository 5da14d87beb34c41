"""The last check before actions leave the policy, and the first of numbers that come to it."""

# Shapes: R leftover timesteps, T timesteps, D dimensions.

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# One float32 rounding of a bin's edge, relative to its size.
_TOLERANCE = 1e-6


def real_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """The values as float64; raises ValueError if they are no array of real numbers."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} must be an array of real numbers; {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be real numbers; got {array.dtype} of shape {array.shape}, as from "
            f"{type(values).__name__}"
        )
    return array.astype(np.float64)


def safe_actions(actions: np.ndarray, bins: Any) -> np.ndarray:
    """(..., T, D) float32 actions, clipped to the action bins.

    Raises:
        ValueError: if an action is not finite.
    """
    if not np.isfinite(actions).all():
        raise ValueError(
            f"the plan holds actions that are not finite: {actions.tolist()}; stop the robot and "
            "check the checkpoint's weights"
        )
    low, high = (np.array(edge, dtype=np.float32) for edge in (bins.low, bins.high))
    return np.clip(np.asarray(actions, dtype=np.float32), low, high)


def check_actions(values_RD: np.ndarray, bins: Any) -> None:
    """Raise ValueError if an action of a leftover is not finite or outside the action bins."""
    low, high = np.array(bins.low), np.array(bins.high)
    slack = _TOLERANCE * np.maximum(np.abs(low), np.abs(high))
    is_good = (values_RD >= low - slack) & (values_RD <= high + slack)  # False for NaN
    if not is_good.all():
        raise ValueError(
            f"leftover must be finite and lie between {bins.low} and {bins.high}; got "
            f"{values_RD[~is_good].tolist()}: pass what the policy returned, in its own units"
        )
