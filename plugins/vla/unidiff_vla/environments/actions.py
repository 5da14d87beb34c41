"""What is checked of an action before any simulator sees it. Knows no simulator."""

from typing import Any

import numpy as np


def bounds_of(action_space: Any) -> tuple[np.ndarray, np.ndarray]:
    """(D,) smallest and largest values of an action, float64.

    Args:
        action_space: with `shape`, `low` and `high`, which may be single numbers.

    Raises:
        ValueError: if it is no box of one dimension.
    """
    shape = getattr(action_space, "shape", None)
    if shape is None or len(shape) != 1 or not hasattr(action_space, "low"):
        raise ValueError(
            "expected an action_space of shape (D,) with `low` and `high`, as gymnasium.spaces.Box "
            f"has; got {action_space!r}"
        )
    low, high = (
        np.broadcast_to(np.asarray(side, dtype=np.float64), shape)
        for side in (action_space.low, action_space.high)
    )
    return low, high


def checked_action(action: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The action as (D,) float64, clipped to its bounds.

    Args:
        action: D numbers, in units of the environment.
        low: (D,) smallest values.
        high: (D,) largest values.

    Raises:
        ValueError: if the shape differs from the bounds' or a number is not finite. The simulator
            would take such a number for a position and be broken until the next reset.
    """
    values = np.asarray(action, dtype=np.float64)
    if values.shape != low.shape:
        raise ValueError(
            f"expected an action of shape {low.shape}, got {values.shape}; of a chunk (T, D), "
            "execute one row after another"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"expected finite numbers in an action, got {values.tolist()}; check how it was "
            "decoded and un-normalised"
        )
    return np.clip(values, low, high)
