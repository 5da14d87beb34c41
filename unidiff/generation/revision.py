"""Giving revealed positions back, or changing them: what may happen after a step's reveals.

Revealed means fixed unless a revision says otherwise, and never in a committed block, in what was
delivered, or in a pinned position (DESIGN decision 14). Revisions that read the model's opinion of
visible tokens need weights that were trained on visible positions (`config.trained_on_visible`).
"""

# Shapes: B rows, K canvas.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform

from .order import reveal_highest
from .predictions import Opinion
from .remasking import RemaskingSchedule, remasking_schedule

DRAW_REMASK = 5  # purpose of a row's random numbers


@dataclass(frozen=True)
class RevisionView:
    """What a revision sees: the canvas before a step's reveals, and the step's predictions.

    Positions that the step reveals are seen by `full_BK` alone, and by their confidence.

    Attributes:
        ids_BK: (B, K) int64 tokens; read where revisable.
        revisable_BK: (B, K) bool, revealed positions that may change.
        step_B: (B,) int64, steps done before this one.
        budget_B: (B,) int64, steps that the block may take.
        confidence_BK: (B, K) float64, confidence of each position when it was revealed.
        opinion: what the model now says of the visible tokens; None for revisions that do not read
            it.
        index_BK: (B, K) int64, index of each position in its row.
        seed_B: (B,) int64, key of each row's random numbers.
        num_returns_B: (B,) int64, steps of the window in which positions were given back.
        full_BK: (B, K) bool, what may change of the windows that this step's reveals have left
            without a mask, those reveals included; nothing behind an end token.
    """

    ids_BK: Tensor
    revisable_BK: Tensor
    step_B: Tensor
    budget_B: Tensor
    confidence_BK: Tensor
    opinion: Opinion | None
    index_BK: Tensor
    seed_B: Tensor
    num_returns_B: Tensor
    full_BK: Tensor

    @property
    def is_last(self) -> Tensor:
        """(B,) bool, whether this step must end the block."""
        return self.step_B + 1 >= self.budget_B


@dataclass(frozen=True)
class Revised:
    """What a revision changes.

    Attributes:
        remask_BK: (B, K) bool, positions given back.
        rewrite_BK: (B, K) bool, positions that take the token now likeliest; None: none.
    """

    remask_BK: Tensor
    rewrite_BK: Tensor | None = None


class Revision(Protocol):
    """Changes revealed positions after a step's reveals."""

    @property
    def reads_visible(self) -> bool:
        """Whether it reads what the model says of visible tokens."""
        ...

    @property
    def max_post_steps(self) -> int:
        """Forwards that it may ask for when no mask is left."""
        ...

    def __call__(self, view: RevisionView) -> Revised:
        """Which of the revisable positions to remask or rewrite."""
        ...


@dataclass(frozen=True)
class Remask:
    """ReMDM: visible tokens are masked again at random, as a schedule says.

    Attributes:
        schedule: goes with the strategy `remdm` of the same schedule.
    """

    schedule: RemaskingSchedule
    reads_visible: bool = False
    max_post_steps: int = 0

    def __call__(self, view: RevisionView) -> Revised:
        """Positions to remask."""
        sigma_BK = self.schedule.sigma(view.step_B, view.budget_B)[:, None]
        if self.schedule.kind == "confidence":
            doubt_BK = (-view.confidence_BK).masked_fill(~view.revisable_BK, -torch.inf)
            sigma_BK = sigma_BK * doubt_BK.softmax(1).nan_to_num(0.0)
        number_BK = uniform(view.seed_B[:, None], DRAW_REMASK, view.index_BK, view.step_B[:, None])
        return Revised(view.revisable_BK & (number_BK < sigma_BK) & ~view.is_last[:, None])


@dataclass(frozen=True)
class SecondaryRemask:
    """Tokens that the model has come to doubt are given back.

    Attributes:
        threshold: bound on the present probability after the last step; it rises in a straight
            line from 0.
        drop: loss of probability since the reveal that is too much.

    Source: secondary remasking of Discrete Diffusion VLA, arXiv 2508.20072 (threshold check and
        residual-drop check).
    """

    threshold: float = 0.5
    drop: float = 0.3
    reads_visible: bool = True
    max_post_steps: int = 0

    def __call__(self, view: RevisionView) -> Revised:
        """Positions to remask."""
        assert view.opinion is not None
        present_BK = view.opinion.present_BK
        bound_B = self.threshold * ((view.step_B + 1) / view.budget_B).to(torch.float64)
        doubted_BK = present_BK < bound_B[:, None]
        fallen_BK = view.confidence_BK - present_BK > self.drop
        wanted_BK = view.revisable_BK & (doubted_BK | fallen_BK)
        return Revised(wanted_BK & ~view.is_last[:, None])


@dataclass(frozen=True)
class Resample:
    """When the last mask is filled, the least certain share is given back and drawn anew.

    A token was least certain because little was known yet, or because it was drawn together with
    others that it did not know of; now it is drawn given all that stays. It reads no opinion of
    visible tokens, so any weights will do, and costs the forwards of that share. Where the strategy
    uses up its step budget nothing is given back.

    Attributes:
        share: of the window's positions, pinned ones and those behind an end token left out,
            rounded up.
        rounds: how often.

    Source: own derivation: a block Gibbs step on the positions of least confidence, which is what
        informed correctors (arXiv 2407.21243) do with the confidence of visible tokens; checked in
        tests/generation/test_revision.py and on the exact denoiser.
    """

    share: float = 0.25
    rounds: int = 1
    reads_visible: bool = False
    max_post_steps: int = 0

    def __call__(self, view: RevisionView) -> Revised:
        """Positions to remask."""
        exact_B = self.share * view.full_BK.sum(1).to(torch.float64)
        count_B = (exact_B - 1e-9).ceil().clamp(min=1).to(torch.int64)  # 0.28 of 25 is seven
        is_due_B = (view.num_returns_B < self.rounds) & ~view.is_last
        due_BK = view.full_BK & is_due_B[:, None]
        return Revised(reveal_highest(-view.confidence_BK, due_BK, count_B))


@dataclass(frozen=True)
class Edit:
    """Visible tokens are rewritten where the model is sure of another one.

    Attributes:
        threshold: least probability of the other one.
        max_post_steps: forwards behind the last mask while tokens still change.

    Source: joint edit of LLaDA2.1 (its threshold for visible tokens and its post steps).
    """

    threshold: float = 0.9
    max_post_steps: int = 16
    reads_visible: bool = True

    def __call__(self, view: RevisionView) -> Revised:
        """Positions to rewrite."""
        assert view.opinion is not None
        other_BK = view.opinion.likeliest_BK != view.ids_BK
        sure_BK = view.opinion.likeliest_prob_BK > self.threshold
        nothing_BK = torch.zeros_like(view.revisable_BK)
        return Revised(nothing_BK, view.revisable_BK & other_BK & sure_BK)


@dataclass(frozen=True)
class Criticised:
    """A caller's critic scores the tokens; the worst are given back.

    Attributes:
        critic: (B, K) ids and (B, K) bool revisable -> (B, K) score that each token is good, in
            [0, 1].
        threshold: score below which a token is given back.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    threshold: float = 0.5
    reads_visible: bool = False
    max_post_steps: int = 0

    def __call__(self, view: RevisionView) -> Revised:
        """Positions to remask.

        Raises:
            ValueError: if the critic's scores have another shape.
        """
        score_BK = self.critic(view.ids_BK, view.revisable_BK)
        if score_BK.shape != view.ids_BK.shape:
            raise ValueError(
                f"the critic must return shape {tuple(view.ids_BK.shape)}, got "
                f"{tuple(score_BK.shape)}"
            )
        bad_BK = view.revisable_BK & (score_BK < self.threshold)
        return Revised(bad_BK & ~view.is_last[:, None])


def revision_of(options: Mapping[str, Any]) -> Revision | None:
    """The revision that the options name; None for none.

    Args:
        options: every option; see `unidiff.generation.options.OPTIONS`.
    """
    name = options["revision"]
    if callable(name):
        return Criticised(name, options["revision_threshold"])
    if options["unmasking_strategy"] == "remdm":
        return Remask(remasking_schedule(options))
    if name == "secondary":
        return SecondaryRemask(options["revision_threshold"], options["revision_drop"])
    if name == "resample":
        return Resample(options["resample_share"], options["resample_rounds"])
    if name == "edit":
        return Edit(options["edit_threshold"], options["max_post_edit_steps"])
    return None
