"""Which masked positions to reveal next: how certain each is, and how many go at once.

Positions are ranked by the distribution at the position, before a token is drawn from it: ranking
by the probability of a token already drawn is biased even with a perfect model (DESIGN decision
12). Pure functions on (rows, canvas) tensors, shared by every decode loop. Ties go to the lower
position.
"""

# Shapes: B rows, K canvas, N positions, V ids.

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform

DRAW_TOKEN = 0  # purposes of a row's random numbers
DRAW_ORDER = 1
DRAW_NOISE = 2


def max_probability(logits_NV: Tensor) -> Tensor:
    """(N,) probability of the likeliest id."""
    return (logits_NV.amax(-1) - logits_NV.logsumexp(-1)).exp()


def probability_margin(logits_NV: Tensor) -> Tensor:
    """(N,) likeliest probability less the second; 1 where only one id is possible."""
    if logits_NV.shape[-1] == 1:
        return torch.ones_like(logits_NV[:, 0])
    top_N2 = logits_NV.topk(2, dim=-1).values
    prob_N2 = (top_N2 - logits_NV.logsumexp(-1, keepdim=True)).exp()
    return prob_N2[:, 0] - prob_N2[:, 1]


def inverse_perplexity(logits_NV: Tensor) -> Tensor:
    """(N,) exp(-entropy): 1 where certain, 1 / n where n ids are equally likely."""
    log_prob_NV = logits_NV.log_softmax(-1)
    return (
        (log_prob_NV.exp() * log_prob_NV.clamp(min=torch.finfo(log_prob_NV.dtype).min))
        .sum(-1)
        .exp()
    )


CONFIDENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "prob": max_probability,
    "margin": probability_margin,
    "entropy": inverse_perplexity,
}


@dataclass(frozen=True)
class StepView:
    """What a strategy sees of one step.

    Attributes:
        confidence_BK: (B, K) float, in (0, 1]; read where masked.
        masked_BK: (B, K) bool, positions that may be revealed now.
        step_B: (B,) int64, steps already done in the block.
        budget_B: (B,) int64, steps that the block may take in all, >= 1.
        total_B: (B,) int64, positions that were masked when the block began.
        threshold_B: (B,) float, `confidence_threshold` of each row.
        index_BK: (B, K) int64, index of each position in its row.
        seed_B: (B,) int64, key of each row's random numbers.
    """

    confidence_BK: Tensor
    masked_BK: Tensor
    step_B: Tensor
    budget_B: Tensor
    total_B: Tensor
    threshold_B: Tensor
    index_BK: Tensor
    seed_B: Tensor

    @property
    def num_remaining(self) -> Tensor:
        """(B,) positions still masked."""
        return self.masked_BK.sum(1)

    @property
    def even_share(self) -> Tensor:
        """(B,) positions to reveal now to stay in budget: ceil(remaining / steps left)."""
        steps_left_B = (self.budget_B - self.step_B).clamp(min=1)
        return (self.num_remaining + steps_left_B - 1) // steps_left_B

    def uniform(self, draw: int) -> Tensor:
        """(B, K) float64 random numbers of this step."""
        return uniform(self.seed_B[:, None], draw, self.index_BK, self.step_B[:, None])


class UnmaskingStrategy(Protocol):
    """Chooses the positions to reveal in a step."""

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool, a subset of `masked_BK`; at least one in every row that has one."""
        ...


def reveal_highest(score_BK: Tensor, masked_BK: Tensor, count_B: Tensor) -> Tensor:
    """(B, K) bool, the `count_B` masked positions of highest score; ties to the lower index.

    Args:
        score_BK: (B, K) float, read where masked.
        masked_BK: (B, K) bool.
        count_B: (B,) int64; more than there are reveals all.
    """
    score_BK = score_BK.masked_fill(~masked_BK, -torch.inf)
    order_BK = torch.sort(score_BK, dim=1, descending=True, stable=True).indices
    rank_BK = torch.argsort(order_BK, dim=1)
    return masked_BK & (rank_BK < count_B[:, None])


@dataclass(frozen=True)
class RevealStatic:
    """An even share each step, most certain first (LLaDA's low-confidence remasking)."""

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        return reveal_highest(view.confidence_BK, view.masked_BK, view.even_share)


@dataclass(frozen=True)
class RevealSequential:
    """An even share each step, leftmost first."""

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        leftness_BK = -view.index_BK.to(torch.float64)
        return reveal_highest(leftness_BK, view.masked_BK, view.even_share)


@dataclass(frozen=True)
class RevealRandom:
    """An even share each step, in random order."""

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        return reveal_highest(view.uniform(DRAW_ORDER), view.masked_BK, view.even_share)


@dataclass(frozen=True)
class RevealThreshold:
    """Every position at or above the row's threshold, and never less than an even share.

    Source: Fast-dLLM, arXiv 2505.22618 (confidence-aware parallel decoding); the even share makes a
        step budget smaller than the block end without a mask. With the default budget it is one.
    """

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        certain_BK = view.masked_BK & (view.confidence_BK >= view.threshold_B[:, None])
        share_BK = reveal_highest(view.confidence_BK, view.masked_BK, view.even_share)
        return certain_BK | share_BK


@dataclass(frozen=True)
class RevealCosine:
    """Few positions first, many last: floor(n cos(pi/2 (s+1)/S)) stay masked after step s of S.

    Attributes:
        noise: scale of Gumbel noise on the log confidence, shrinking linearly to 0 at the last
            step.

    Source: MaskGIT, arXiv 2202.04200, section 3.2 (cosine scheduling); the noise follows its code.
    """

    noise: float = 0.0

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        score_BK = view.confidence_BK
        progress_B = ((view.step_B + 1) / view.budget_B).to(torch.float64).clamp(max=1.0)
        if self.noise:
            gumbel_BK = -torch.log(-torch.log(view.uniform(DRAW_NOISE)))
            scale_B1 = (self.noise * (1.0 - progress_B))[:, None]
            score_BK = score_BK.to(torch.float64).log() + scale_B1 * gumbel_BK
        stays_B = torch.floor(view.total_B * torch.cos(math.pi / 2 * progress_B)).long()
        stays_B = torch.where(progress_B >= 1.0, 0, stays_B)
        count_B = (view.num_remaining - stays_B).clamp(min=1)
        return reveal_highest(score_BK, view.masked_BK, count_B)


def unmasking_strategy(name: str, confidence_noise: float = 0.0) -> UnmaskingStrategy:
    """Strategy of that name; see `unidiff.generation.options.UNMASKING_STRATEGIES`."""
    strategies: dict[str, UnmaskingStrategy] = {
        "static": RevealStatic(),
        "threshold": RevealThreshold(),
        "cosine": RevealCosine(noise=confidence_noise),
        "sequential": RevealSequential(),
        "random": RevealRandom(),
    }
    return strategies[name]
