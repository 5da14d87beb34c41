"""How few denoising steps a task needs: chosen from recorded observations, once, before driving.

Block-wise adaptive caching chooses per layer in which steps of a fixed schedule to recompute; here
the schedule itself is shortened, which needs no cache and holds for any strategy that reads
`max_denoising_steps`.
"""

# Shapes: N observations, T timesteps, D dimensions.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .fit import fewest_steps
from .observations import Observation
from .policy import MaskedDiffusionPolicy

_BATCH = 64


@dataclass(frozen=True)
class StepCalibration:
    """What was chosen for one task.

    Attributes:
        num_steps: `max_denoising_steps` to plan with.
        full_steps: steps of the full schedule, one for each token.
        differences: mean difference from the full schedule of each number of steps tried, in ranges
            of an action dimension.
    """

    num_steps: int
    full_steps: int
    differences: dict[int, float]


def calibrate_steps(
    policy: MaskedDiffusionPolicy,
    recordings: Mapping[str, Sequence[Observation]],
    bound: float,
    *,
    candidates: Sequence[int] = (1, 2, 3, 4, 6, 8, 12),
    seed: int = 0,
) -> dict[str, StepCalibration]:
    """For each task the fewest steps whose chunks differ from the full schedule's by < `bound`.

    The difference is the mean of |a - b| over observations, timesteps and dimensions, where each
    dimension is measured in its own range. It compares plans; whether the robot still succeeds is
    for episodes to say.

    Args:
        policy: plans with its own decoding options.
        recordings: observations of each task, as they were met while driving.
        bound: in ranges of an action dimension, > 0.
        candidates: numbers of steps to try; those at or above the full schedule, or too few for the
            policy's revision, are left out.
        seed: of all plans; row i has the same key with any number of steps.

    Raises:
        ValueError: if the bound or a candidate is not positive, or a task has no observation.

    Source: own derivation after block-wise adaptive caching (BAC), which calibrates a per-layer
        cache schedule; checked in tests/policy/test_policy_calibration.py.
    """
    if not bound > 0:
        raise ValueError(f"bound must be > 0; got {bound=}")
    if not candidates or min(candidates) < 1:
        raise ValueError(f"candidates must be one or more numbers >= 1; got {candidates}")
    if empty := sorted(task for task, one in recordings.items() if not len(one)):
        raise ValueError(f"recordings must hold observations of every task; none of {empty}")
    full_steps, least = policy.bins.num_tokens, fewest_steps(policy.settings.decoding)
    found = {}
    for task, observations in recordings.items():
        full = _chunks(policy, observations, full_steps, seed)
        differences: dict[int, float] = {}
        for steps in sorted({one for one in candidates if least <= one < full_steps}):
            chunks = _chunks(policy, observations, steps, seed)
            differences[steps] = chunk_difference(chunks, full, policy.bins)
            if differences[steps] < bound:
                break
        good = [steps for steps, value in differences.items() if value < bound]
        found[task] = StepCalibration(min(good, default=full_steps), full_steps, differences)
    return found


def chunk_difference(chunks: np.ndarray, others: np.ndarray, bins: Any) -> float:
    """Mean absolute difference of two (N, T, D) arrays of chunks, in ranges of each dimension."""
    width = np.array(bins.high) - np.array(bins.low)
    width = np.where(width > 0, width, 1.0)  # a constant dimension never differs
    return float((np.abs(chunks.astype(np.float64) - others) / width).mean())


def _chunks(
    policy: MaskedDiffusionPolicy, observations: Sequence[Observation], steps: int, seed: int
) -> np.ndarray:
    """(N, T, D) chunks of recorded observations in that many steps."""
    parts = [
        policy.predict_action_chunk(
            list(observations[start : start + _BATCH]), seed=seed + start, max_denoising_steps=steps
        )
        for start in range(0, len(observations), _BATCH)
    ]
    return np.concatenate(parts)
