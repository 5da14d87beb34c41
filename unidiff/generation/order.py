"""Which masked positions to reveal next: the protocol, and the orders that take an even share.

Pure functions on (rows, canvas) tensors, shared by every decode loop. Strategies that let certainty
or the clock decide how many go at once are in `pace.py` and `timetable.py`; the table of all is in
`strategies.py`. Ties go to the lower position.
"""

# Shapes: B rows, K canvas, N positions, V ids.

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform

from .confidence import entropy

DRAW_TOKEN = 0  # purposes of a row's random numbers
DRAW_ORDER = 1
DRAW_NOISE = 2


@dataclass(frozen=True)
class StepView:
    """What a strategy sees of one step.

    Attributes:
        confidence_BK: (B, K) float, in [0, 1]; read where masked.
        masked_BK: (B, K) bool, positions that may be revealed now.
        step_B: (B,) int64, steps already done in the block.
        budget_B: (B,) int64, steps that the block may take in all, >= 1.
        total_B: (B,) int64, positions that were masked when the block began.
        threshold_B: (B,) float, `confidence_threshold` of each row.
        index_BK: (B, K) int64, index of each position in its row.
        position_B3K: (B, 3, K) int64, place of each position along the axes of rotary positions:
            text has three equal ones, a picture time, row and column.
        seed_B: (B,) int64, key of each row's random numbers.
        logits_NV: (N, V) float, -inf at ids that a position may not take; one line for each masked
            position, row by row.
        num_kept_B: (B,) int64, positions that the step before chose, where every step chooses anew
            among all (renoise); None: what is chosen stays.
    """

    confidence_BK: Tensor
    masked_BK: Tensor
    step_B: Tensor
    budget_B: Tensor
    total_B: Tensor
    threshold_B: Tensor
    index_BK: Tensor
    position_B3K: Tensor
    seed_B: Tensor
    logits_NV: Tensor
    num_kept_B: Tensor | None = None

    @property
    def num_remaining(self) -> Tensor:
        """(B,) positions still masked."""
        return self.masked_BK.sum(1)

    @property
    def even_share(self) -> Tensor:
        """(B,) positions to reveal now to stay in budget: ceil(remaining / steps left)."""
        steps_left_B = (self.budget_B - self.step_B).clamp(min=1)
        if self.num_kept_B is None:
            return (self.num_remaining + steps_left_B - 1) // steps_left_B
        num_new_B = self.num_remaining - self.num_kept_B
        return self.num_kept_B + (num_new_B + steps_left_B - 1) // steps_left_B

    @property
    def least_share(self) -> Tensor:
        """(B,) positions that certainty must let go in any case: the even share, or one."""
        return self.even_share if self.num_kept_B is None else torch.ones_like(self.step_B)

    @property
    def progress(self) -> Tensor:
        """(B,) float64 share of the budget used up when this step is done, at most 1."""
        return ((self.step_B + 1) / self.budget_B).to(torch.float64).clamp(max=1.0)

    @cached_property
    def entropies(self) -> Tensor:
        """(B, K) float entropy in nats; read where masked."""
        entropy_N = entropy(self.logits_NV)
        return entropy_N.new_zeros(self.masked_BK.shape).masked_scatter(self.masked_BK, entropy_N)

    def are_near(self, reach: int) -> Tensor:
        """(B, K, K) bool, pairs at most `reach` apart along every axis."""
        apart_B3KK = self.position_B3K[:, :, :, None] - self.position_B3K[:, :, None, :]
        return (apart_B3KK.abs() <= reach).all(1)

    def uniform(self, draw: int, step_B: Tensor | None = None) -> Tensor:
        """(B, K) float64 random numbers of this step, or of the given ones."""
        step_B = self.step_B if step_B is None else step_B
        return uniform(self.seed_B[:, None], draw, self.index_BK, step_B[:, None])


class UnmaskingStrategy(Protocol):
    """Chooses the positions to reveal in a step."""

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool, a subset of `masked_BK`; at least one in every row that has one."""
        ...


def rank_of(score_BK: Tensor, masked_BK: Tensor) -> Tensor:
    """(B, K) int64 rank of each masked position by falling score, from 0; ties to the lower index.

    Positions that are not masked rank behind all that are.
    """
    score_BK = score_BK.masked_fill(~masked_BK, -torch.inf)
    order_BK = torch.sort(score_BK, dim=1, descending=True, stable=True).indices
    return torch.argsort(order_BK, dim=1)


def reveal_highest(score_BK: Tensor, masked_BK: Tensor, count_B: Tensor) -> Tensor:
    """(B, K) bool, the `count_B` masked positions of highest score; ties to the lower index.

    Args:
        score_BK: (B, K) float, read where masked.
        masked_BK: (B, K) bool.
        count_B: (B,) int64; more than there are reveals all.
    """
    return masked_BK & (rank_of(score_BK, masked_BK) < count_B[:, None])


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
class RevealFirstAlone:
    """The first position of a block by itself; behind it, what another strategy chooses.

    With `logits_shift=1` the first position is read from the last token of the finished block, so
    this step takes it as an autoregressive model would. A canvas that opens with a prompt's tokens
    has no such step.

    Attributes:
        then: the other strategy.

    Source: Fast-dLLM v2, arXiv 2509.26328, as its published loop decodes; checked against that loop
        in tests/convert/test_families.py.
    """

    then: UnmaskingStrategy

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        alone_BK = torch.zeros_like(view.masked_BK)
        alone_BK[:, 0] = view.masked_BK[:, 0]
        return torch.where(alone_BK[:, :1], alone_BK, self.then(view))


@dataclass(frozen=True)
class RevealAll:
    """Every position: the loop itself draws how far each one goes (`ancestral`)."""

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        return view.masked_BK
