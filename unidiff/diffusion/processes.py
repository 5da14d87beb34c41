"""Noise processes behind one interface: how tokens are corrupted, and how a step back is drawn.

The process is part of a checkpoint (`config.noise_process`): weights trained under one mean
nothing under another. Knows nothing about models.
"""

# Shapes: N positions, V ids.

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .uniform import uniform_ids, uniform_reverse

NOISE_PROCESSES = ("absorbing", "uniform")
# What a head of the uniform process predicts; see `uniform.py`.
UNIFORM_PREDICTIONS = ("leave_one_out", "posterior")


class Process(Protocol):
    """Corruption of single tokens, and its reversal given a prediction."""

    def corrupt(self, clean_N: Tensor, alpha_N: Tensor, keep_N: Tensor, token_N: Tensor) -> Tensor:
        """(N,) noisy ids.

        Args:
            clean_N: (N,) int64.
            alpha_N: (N,) float, probability that a token is still clean.
            keep_N: (N,) float in (0, 1), random numbers that say which tokens stay.
            token_N: (N,) float in (0, 1), random numbers that say what the others become.
        """
        ...

    def reverse(
        self, law_NV: Tensor, current_N: Tensor, alpha_now_N: Tensor, alpha_next_N: Tensor
    ) -> Tensor:
        """(N, V) law of the ids at an earlier time.

        Args:
            law_NV: (N, V) float, law of the clean token given the other tokens.
            current_N: (N,) int64, ids now.
            alpha_now_N: (N,) float.
            alpha_next_N: (N,) float, at least `alpha_now_N`.
        """
        ...


@dataclass(frozen=True)
class Absorbing:
    """Tokens become the mask id; a visible token is clean.

    Attributes:
        mask_token_id: the id that absorbs.
    """

    mask_token_id: int

    def corrupt(self, clean_N: Tensor, alpha_N: Tensor, keep_N: Tensor, token_N: Tensor) -> Tensor:
        """(N,) noisy ids; `token_N` is not read."""
        del token_N
        return torch.where(keep_N < alpha_N, clean_N, self.mask_token_id)

    def reverse(
        self, law_NV: Tensor, current_N: Tensor, alpha_now_N: Tensor, alpha_next_N: Tensor
    ) -> Tensor:
        """(N, V) law of the earlier ids: a mask is revealed with (alpha' - alpha) / (1 - alpha)."""
        reveal_N = (alpha_next_N - alpha_now_N) / (1.0 - alpha_now_N).clamp(min=1e-12)
        reveal_N1 = reveal_N.to(law_NV)[:, None]
        earlier_NV = reveal_N1 * law_NV
        earlier_NV[:, self.mask_token_id] += (1.0 - reveal_N1)[:, 0]
        stays_NV = torch.zeros_like(law_NV).scatter_(1, current_N[:, None], 1.0)
        return torch.where((current_N == self.mask_token_id)[:, None], earlier_NV, stays_NV)


@dataclass(frozen=True)
class Uniform:
    """Tokens become one of the ids that they may take, all alike.

    Attributes:
        support: (V,) bool, those ids.
    """

    support: Tensor

    def corrupt(self, clean_N: Tensor, alpha_N: Tensor, keep_N: Tensor, token_N: Tensor) -> Tensor:
        """(N,) noisy ids; a redrawn token may come out as it was."""
        choices_C = torch.nonzero(self.support)[:, 0]
        return torch.where(keep_N < alpha_N, clean_N, uniform_ids(token_N, choices_C))

    def reverse(
        self, law_NV: Tensor, current_N: Tensor, alpha_now_N: Tensor, alpha_next_N: Tensor
    ) -> Tensor:
        """(N, V) law of the earlier ids; see `uniform_reverse`."""
        return uniform_reverse(law_NV, current_N, alpha_now_N, alpha_next_N, self.support)
