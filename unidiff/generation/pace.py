"""How many positions to reveal when certainty decides.

Every strategy here reveals at least an even share of what is left, so that a step budget smaller
than the block ends without a mask; with the default budget that share is one position.
"""

# Shapes: B rows, K canvas.

from dataclasses import dataclass

import torch
from torch import Tensor

from .order import StepView, rank_of, reveal_highest


def at_least_share(view: StepView, reveal_BK: Tensor) -> Tensor:
    """(B, K) bool, the positions given and the most certain ones that the budget asks for."""
    return reveal_BK | reveal_highest(view.confidence_BK, view.masked_BK, view.least_share)


def sorted_scores(score_BK: Tensor, masked_BK: Tensor, fill: float) -> Tensor:
    """(B, K) float64 scores of the masked positions in falling order, `fill` behind them."""
    rank_BK = rank_of(score_BK, masked_BK)
    score_BK = score_BK.to(torch.float64).masked_fill(~masked_BK, fill)
    return torch.zeros_like(score_BK).scatter(1, rank_BK, score_BK)


def leading_run(holds_BK: Tensor) -> Tensor:
    """(B,) int64 length of the leading run of True."""
    return holds_BK.to(torch.int64).cumprod(1).sum(1)


@dataclass(frozen=True)
class RevealThreshold:
    """Every position at or above the row's threshold.

    Attributes:
        is_strict: above it only.

    Source: Fast-dLLM, arXiv 2505.22618 (confidence-aware parallel decoding); strict and with a step
        budget it is SDAR's `low_confidence_dynamic` (arXiv 2510.06303).
    """

    is_strict: bool = False

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        threshold_B1 = view.threshold_B[:, None]
        certain_BK = view.confidence_BK >= threshold_B1
        if self.is_strict:
            certain_BK = view.confidence_BK > threshold_B1
        return at_least_share(view, view.masked_BK & certain_BK)


@dataclass(frozen=True)
class RevealRelative:
    """Every position at or above the threshold, or as certain as the best one where none is.

    Attributes:
        slack: how far below the best still counts as equal.

    Source: dInfer, arXiv 2510.08666 (its threshold decoder clamps the threshold to the maximum less
        1e-5).
    """

    slack: float = 1e-5

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        best_B = view.confidence_BK.masked_fill(~view.masked_BK, -torch.inf).amax(1)
        threshold_B = torch.minimum(view.threshold_B.to(best_B), best_B - self.slack)
        certain_BK = view.masked_BK & (view.confidence_BK >= threshold_B[:, None])
        return at_least_share(view, certain_BK)


@dataclass(frozen=True)
class RevealFactor:
    """The n most certain, n the largest with (n + 1) (1 - c_n) <= factor.

    Attributes:
        factor: total doubt that may be taken at once.

    Source: Fast-dLLM, arXiv 2505.22618, section 3.3 (theorem 1: the greedy product equals the joint
        mode while (n + 1) eps <= 1); checked by brute force in tests/generation/test_pace.py.
    """

    factor: float = 1.0

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        score_BK = sorted_scores(view.confidence_BK, view.masked_BK, -torch.inf)
        rank_K = torch.arange(1, score_BK.shape[1] + 1, device=score_BK.device)
        count_B = leading_run((rank_K + 1) * (1.0 - score_BK) <= self.factor)
        reveal_BK = reveal_highest(view.confidence_BK, view.masked_BK, count_B)
        return at_least_share(view, reveal_BK)


@dataclass(frozen=True)
class RevealFrechet:
    """The n most certain, n the largest with max(0, sum c - (n - 1)) - (1 - c_n) > margin.

    The first term is the least joint probability that marginals c allow (Frechet's lower bound),
    the second the most that another value of the last position can have.

    Attributes:
        margin: how far the first must exceed the second.

    Source: Fast-dLLM++, arXiv 2606.02955; equals `RevealFactor(1 - margin)` for equal confidences
        (but for the boundary itself), checked in tests/generation/test_pace.py.
    """

    margin: float = 0.25

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        score_BK = sorted_scores(view.confidence_BK, view.masked_BK, -torch.inf)
        num_before_K = torch.arange(score_BK.shape[1], device=score_BK.device)
        least_BK = (score_BK.cumsum(1) - num_before_K).clamp(min=0.0)
        count_B = leading_run(least_BK - (1.0 - score_BK) > self.margin)
        reveal_BK = reveal_highest(view.confidence_BK, view.masked_BK, count_B)
        return at_least_share(view, reveal_BK)


@dataclass(frozen=True)
class RevealEntropyBound:
    """The positions of least entropy while their sum without the largest stays within the bound.

    Attributes:
        bound: nats; bounds the mutual information that revealing them together ignores.
        final: nats; the bound moves evenly from `bound`, while nothing of the block is revealed, to
            this, when all is. None: it stays. Late in a block most of the entropy left is each
            token's own noise, not what tokens owe to each other.
        local: nats; a position waits while the less uncertain masked ones within `reach` of it have
            more entropy than this together. Near tokens (an object's edge) owe each other more than
            distant ones (two objects). None: no such bound.
        final_local: nats; what `local` moves to as `bound` moves to `final`. None: it stays.
        reach: distance along each axis of position at which two positions are near.

    Source: EB sampler, arXiv 2505.24857, section 4; `final` and `local` are our own, after
        measurements on drawn scenes. All checked by brute force, the first also against
        transformers' own sampler, in tests/generation/test_pace.py.
    """

    bound: float = 0.1
    final: float | None = None
    local: float | None = None
    final_local: float | None = None
    reach: int = 2

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        certainty_BK = -view.entropies
        entropy_BK = -sorted_scores(certainty_BK, view.masked_BK, -torch.inf)
        before_BK = torch.cumsum(entropy_BK, 1).roll(1, 1)
        before_BK[:, 0] = 0.0
        fits_BK = (before_BK <= _moving(self.bound, self.final, view)) & entropy_BK.isfinite()
        reveal_BK = reveal_highest(certainty_BK, view.masked_BK, leading_run(fits_BK))
        if self.local is not None:
            local_B1 = _moving(self.local, self.final_local, view)
            reveal_BK = reveal_BK & (self._entropy_around(view) <= local_B1)
        share_BK = reveal_highest(certainty_BK, view.masked_BK, view.least_share)
        return reveal_BK | share_BK

    def _entropy_around(self, view: StepView) -> Tensor:
        """(B, K) float64 sum over the less uncertain masked positions near each position."""
        rank_BK = rank_of(-view.entropies, view.masked_BK)
        counts_BKK = view.are_near(self.reach) & view.masked_BK[:, None, :]
        counts_BKK &= rank_BK[:, None, :] < rank_BK[:, :, None]
        entropy_BK1 = view.entropies.to(torch.float64).masked_fill(~view.masked_BK, 0.0)[..., None]
        return (counts_BKK.to(torch.float64) @ entropy_BK1)[..., 0]


def _moving(begin: float, end: float | None, view: StepView) -> Tensor | float:
    """(B, 1) float64 between `begin` and `end` by the share revealed; no end: `begin`."""
    if end is None:
        return begin
    total_B = view.total_B.clamp(min=1).to(torch.float64)  # 0: a row that has finished
    revealed_B = 1.0 - view.num_remaining / total_B
    return (begin + (end - begin) * revealed_B)[:, None]


@dataclass(frozen=True)
class RevealHierarchy:
    """The best position of each run of masks if it is fairly certain, and all that are certain.

    Revealing the middle of a run first halves it: distant positions depend on each other less.

    Attributes:
        low_threshold: least confidence of a run's best position.

    Source: dInfer, arXiv 2510.08666 (hierarchical decoding).
    """

    low_threshold: float = 0.4

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        masked_BK, confidence_BK = view.masked_BK, view.confidence_BK
        begins_BK = masked_BK & ~masked_BK.roll(1, 1)
        begins_BK[:, 0] = masked_BK[:, 0]
        run_BK = begins_BK.cumsum(1)
        same_BKK = (run_BK[:, :, None] == run_BK[:, None, :]) & masked_BK[:, None, :]
        rank_BK = rank_of(confidence_BK, masked_BK)
        behind_BKK = same_BKK & (rank_BK[:, None, :] < rank_BK[:, :, None])
        best_BK = masked_BK & ~behind_BKK.any(2) & (confidence_BK > self.low_threshold)
        certain_BK = masked_BK & (confidence_BK >= view.threshold_B[:, None])
        return at_least_share(view, best_BK | certain_BK)
