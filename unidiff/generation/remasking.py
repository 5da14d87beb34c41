"""ReMDM's schedules: how likely a visible token is masked again, and what is then revealed."""

# Shapes: B rows.

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RemaskingSchedule:
    """How likely a visible token is masked again at each step (ReMDM's sigma), alpha being 1 - t.

    Attributes:
        kind: `cap` sigma = min(eta, most), `rescale` eta times the most, `confidence` the most
            shared out by softmax of minus the confidence at reveal, `loop` as `rescale` while alpha
            stands still between two times.
        eta: strength in [0, 1]; 0 is ancestral sampling.
        loop_start: share of the steps after which alpha stands still.
        loop_stop: share of the steps after which it goes on.
        loop_alpha: where it stands.

    Source: ReMDM, arXiv 2503.00307, sections 3 and 4; the marginals stay those of the absorbing
        process, checked in tests/generation/test_revision.py.
    """

    kind: str = "cap"
    eta: float = 0.05
    loop_start: float = 0.45
    loop_stop: float = 0.95
    loop_alpha: float = 0.9

    def alpha(self, share_B: Tensor) -> Tensor:
        """(B,) probability that a token is visible after this share of the steps."""
        if self.kind != "loop":
            return share_B
        rising_B = share_B / self.loop_start * self.loop_alpha
        rest_B = (share_B - self.loop_stop) / (1.0 - self.loop_stop)
        ending_B = self.loop_alpha + rest_B * (1.0 - self.loop_alpha)
        flat_B = torch.full_like(share_B, self.loop_alpha)
        late_B = torch.where(share_B > self.loop_stop, ending_B, flat_B)
        return torch.where(share_B < self.loop_start, rising_B, late_B)

    def span(self, step_B: Tensor, budget_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) alphas before and after a step."""
        before_B = (step_B.to(torch.float64) / budget_B).clamp(max=1.0)
        after_B = ((step_B + 1).to(torch.float64) / budget_B).clamp(max=1.0)
        return self.alpha(before_B), self.alpha(after_B)

    def sigma(self, step_B: Tensor, budget_B: Tensor) -> Tensor:
        """(B,) float64 probability that a visible token is masked again, before any sharing out."""
        before_B, after_B = self.span(step_B, budget_B)
        most_B = ((1.0 - after_B) / before_B.clamp(min=1e-12)).clamp(max=1.0)
        if self.kind == "cap":
            return most_B.clamp(max=self.eta)
        if self.kind == "confidence":
            return most_B
        if self.kind == "loop":
            share_B = step_B.to(torch.float64) / budget_B
            stands_B = (share_B >= self.loop_start) & (share_B < self.loop_stop)
            return torch.where(stands_B, self.eta * most_B, 0.0)
        return self.eta * most_B

    def reveal_prob(self, step_B: Tensor, budget_B: Tensor) -> Tensor:
        """(B,) float64 probability that a masked token is revealed in a step."""
        before_B, after_B = self.span(step_B, budget_B)
        sigma_B = self.sigma(step_B, budget_B)
        if self.kind == "confidence":  # masked positions have no confidence and no share of sigma
            sigma_B = torch.zeros_like(sigma_B)
        gain_B = after_B - (1.0 - sigma_B) * before_B
        return (gain_B / (1.0 - before_B).clamp(min=1e-12)).clamp(0.0, 1.0)


def remasking_schedule(options: Mapping[str, Any]) -> RemaskingSchedule:
    """The schedule that the options name."""
    return RemaskingSchedule(options["remdm_schedule"], options["remdm_eta"])
