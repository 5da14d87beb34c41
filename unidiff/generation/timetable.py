"""How many positions to reveal when the clock decides: counts that follow from step and budget."""

# Shapes: B rows, K canvas.

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .order import DRAW_NOISE, DRAW_ORDER, StepView, reveal_highest
from .remasking import RemaskingSchedule


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
        score_BK, progress_B = view.confidence_BK, view.progress
        if self.noise:
            gumbel_BK = -torch.log(-torch.log(view.uniform(DRAW_NOISE)))
            scale_B1 = (self.noise * (1.0 - progress_B))[:, None]
            score_BK = score_BK.to(torch.float64).log() + scale_B1 * gumbel_BK
        stays_B = torch.floor(view.total_B * torch.cos(math.pi / 2 * progress_B)).long()
        stays_B = torch.where(progress_B >= 1.0, 0, stays_B)
        count_B = (view.num_remaining - stays_B).clamp(min=1)
        return reveal_highest(score_BK, view.masked_BK, count_B)


@dataclass(frozen=True)
class RevealAscending:
    """1, 2, 4, ... positions, most certain first; never less than an even share of the budget.

    Source: ascending step size of "Taming masked diffusion language models" (EOSER + ASS); 64
        positions take 7 steps.
    """

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        doubled_B = torch.ones_like(view.step_B) << view.step_B.clamp(max=62)
        count_B = torch.maximum(doubled_B, view.even_share)
        return reveal_highest(view.confidence_BK, view.masked_BK, count_B)


@dataclass(frozen=True)
class RevealTimetable:
    """The share 1 - s / t of what is left at each step of a straight line of times from 1 to `end`.

    Attributes:
        end: time after the last step; the last step reveals all in any case.

    Source: Dream, arXiv 2508.15487, its `diffusion_generate`; at least one position a step.
    """

    end: float = 1e-3

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        slope_B = (1.0 - self.end) / view.budget_B.to(torch.float64)
        now_B = 1.0 - slope_B * view.step_B
        next_B = now_B - slope_B
        count_B = torch.floor(view.num_remaining * (1.0 - next_B / now_B)).long().clamp(min=1)
        count_B = torch.where(view.progress >= 1.0, view.num_remaining, count_B)
        return reveal_highest(view.confidence_BK, view.masked_BK, count_B)


@dataclass(frozen=True)
class RevealFirstHitting:
    """Each position at its own random time: the absorbing process run backwards, exactly.

    Every position has a hitting time, uniform in (0, 1), that stays the same over the block. With a
    step for each position they are revealed one by one in falling time, which is the law of the
    process in continuous time; with fewer steps, all whose time lies in the step's slice of (0, 1)
    (tau-leaping), the next one where the slice is empty.

    Source: first-hitting sampler, arXiv 2409.02908, section 4, for the linear schedule; slices are
        its ancestral sampler without the steps that change nothing.
    """

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        time_BK = view.uniform(DRAW_ORDER, torch.zeros_like(view.step_B))
        time_BK = time_BK.masked_fill(~view.masked_BK, 0.0)
        is_exact_B = (view.budget_B >= view.total_B) & (view.num_kept_B is None)
        edge_B = torch.where(is_exact_B, 1.0, 1.0 - view.progress)
        edge_B = torch.minimum(edge_B, time_BK.amax(1))
        return view.masked_BK & (time_BK >= edge_B[:, None])


@dataclass(frozen=True)
class RevealReMDM:
    """Every masked position with the probability that a remasking schedule leaves it.

    A step may reveal nothing; the last one reveals all.

    Attributes:
        schedule: of the remasking that goes with it (`revision.Remask`).

    Source: ReMDM, arXiv 2503.00307, section 3.
    """

    schedule: RemaskingSchedule

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal."""
        prob_B = self.schedule.reveal_prob(view.step_B, view.budget_B)
        prob_B = torch.where(view.progress >= 1.0, 1.0, prob_B)
        return view.masked_BK & (view.uniform(DRAW_ORDER) < prob_B[:, None])
