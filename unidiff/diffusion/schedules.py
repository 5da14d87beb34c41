"""Noise schedules: how much of a block is masked at time t, and the loss weight that follows.

A schedule is alpha: [0, 1] -> [0, 1], the probability that a token is still clean. Time 0 is
clean, time 1 is all noise. Knows nothing about tokens or models.
"""

# Shapes: B batch, N blocks (any shape works: schedules are elementwise).

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    """Probability that a token is clean at a time, and the ELBO weight of that time."""

    def alpha(self, time: Tensor) -> Tensor:
        """Probability that a token is clean."""
        ...

    def weight(self, time: Tensor) -> Tensor:
        """ELBO weight -alpha'(t) / (1 - alpha(t)) of a masked token's cross-entropy."""
        ...


@dataclass(frozen=True)
class LinearSchedule:
    """alpha(t) = 1 - t, so the ELBO weight is 1 / t.

    Source: MDLM, arXiv 2406.07524, the log-linear schedule; checked against the enumeration of all
    mask sets in tests/diffusion/test_objective.py.
    """

    def alpha(self, time: Tensor) -> Tensor:
        """1 - t."""
        return 1.0 - time

    def weight(self, time: Tensor) -> Tensor:
        """1 / t; times must be > 0."""
        return 1.0 / time


@dataclass(frozen=True)
class CosineSchedule:
    """alpha(t) = 1 - cos(pi/2 (1 - t)): most of the time most of the tokens are masked.

    Source: MaskGIT, arXiv 2202.04200, section 3.2 (its mask ratio cos(pi/2 r), r = 1 - t); weight
    as in MD4, arXiv 2406.04329, table 1. Checked in tests/diffusion/test_schedules.py.
    """

    def alpha(self, time: Tensor) -> Tensor:
        """1 - cos(pi/2 (1 - t))."""
        return 1.0 - torch.cos(math.pi / 2 * (1.0 - time))

    def weight(self, time: Tensor) -> Tensor:
        """(pi/2) tan(pi/2 (1 - t)); times must be > 0."""
        return math.pi / 2 * torch.tan(math.pi / 2 * (1.0 - time))


SCHEDULES: dict[str, Schedule] = {"linear": LinearSchedule(), "cosine": CosineSchedule()}
