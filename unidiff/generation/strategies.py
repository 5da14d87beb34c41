"""The table of unmasking strategies: a name, and what its options make of it."""

# Shapes: B rows, K canvas.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .options import UNIFORM_STRATEGIES
from .order import (
    RevealAll,
    RevealFirstAlone,
    RevealRandom,
    RevealSequential,
    RevealStatic,
    StepView,
    UnmaskingStrategy,
)
from .pace import (
    RevealEntropyBound,
    RevealFactor,
    RevealFrechet,
    RevealHierarchy,
    RevealRelative,
    RevealThreshold,
)
from .remasking import remasking_schedule
from .timetable import (
    RevealAscending,
    RevealCosine,
    RevealFirstHitting,
    RevealReMDM,
    RevealTimetable,
)

STRATEGIES: dict[str, Callable[[Mapping[str, Any]], UnmaskingStrategy]] = {
    "static": lambda options: RevealStatic(),
    "random": lambda options: RevealRandom(),
    "sequential": lambda options: RevealSequential(),
    "threshold": lambda options: RevealThreshold(),
    "dynamic": lambda options: RevealThreshold(is_strict=True),
    "relative_threshold": lambda options: RevealRelative(),
    "factor": lambda options: RevealFactor(options["factor"]),
    "frechet": lambda options: RevealFrechet(options["frechet_margin"]),
    "entropy_bound": lambda options: RevealEntropyBound(
        options["entropy_bound"],
        options["final_entropy_bound"],
        options["local_entropy_bound"],
        options["final_local_entropy_bound"],
        options["local_reach"],
    ),
    "cosine": lambda options: RevealCosine(options["confidence_noise"]),
    "ascending": lambda options: RevealAscending(),
    "timetable": lambda options: RevealTimetable(),
    "first_hitting": lambda options: RevealFirstHitting(),
    "hierarchy": lambda options: RevealHierarchy(options["hierarchy_threshold"]),
    "remdm": lambda options: RevealReMDM(remasking_schedule(options)),
}


@dataclass(frozen=True)
class GivenStrategy:
    """A caller's strategy, its choices checked.

    Attributes:
        choose: takes a `StepView`, returns the (B, K) bool positions to reveal.
    """

    choose: UnmaskingStrategy

    def __call__(self, view: StepView) -> Tensor:
        """(B, K) bool positions to reveal.

        Raises:
            TypeError: if the choice is no bool tensor.
            ValueError: if it has another shape, names a position that may not be revealed, or none
                in a row that has one.
        """
        reveal_BK = self.choose(view)
        if not isinstance(reveal_BK, Tensor) or reveal_BK.dtype != torch.bool:
            raise TypeError(f"unmasking_strategy must return a bool tensor, got {reveal_BK!r}")
        if reveal_BK.shape != view.masked_BK.shape:
            raise ValueError(
                f"unmasking_strategy must return shape {tuple(view.masked_BK.shape)}, got "
                f"{tuple(reveal_BK.shape)}"
            )
        if bool((reveal_BK & ~view.masked_BK).any()):
            raise ValueError("unmasking_strategy chose a position outside view.masked_BK")
        if bool((view.masked_BK.any(1) & ~reveal_BK.any(1)).any()):
            raise ValueError("unmasking_strategy chose no position in a row that has masks left")
        return reveal_BK


def unmasking_strategy(options: Mapping[str, Any]) -> UnmaskingStrategy:
    """The strategy that the options name, or the callable that the caller gave.

    Args:
        options: every option; see `unidiff.generation.options.OPTIONS`.
    """
    chosen = options["unmasking_strategy"]
    if chosen in UNIFORM_STRATEGIES:
        return RevealAll()
    found = GivenStrategy(chosen) if callable(chosen) else STRATEGIES[chosen](options)
    return RevealFirstAlone(found) if options["first_alone"] else found
