"""Sizes, rates and mixtures of the bundled checkpoint: the first run and its later phases.

Each phase is the one before it with some numbers changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MIXTURE = {  # samples of each cycle; neighbours share micro-batches and have like lengths
    "garment_talk": 32,
    "garment_drawing": 12,
    "picture_infill": 4,
    "scene_drawing": 32,
    "demonstrated": 30,
    "library_text": 2,
    "scene_talk": 16,
}
DRAFTING_MIXTURE = {  # second phase: as many samples of text as make the canvas a good draft
    "garment_talk": 24,
    "garment_drawing": 8,
    "picture_infill": 4,
    "scene_drawing": 20,
    "demonstrated": 8,
    "library_text": 48,
    "scene_talk": 16,
}
FILLING_MIXTURE = {  # third phase: drawn scenes and lines of code to fill
    "garment_talk": 16,
    "garment_drawing": 12,
    "picture_infill": 4,
    "scene_drawing": 48,
    "demonstrated": 8,
    "library_text": 40,
    "scene_talk": 16,
}
GUIDING_MIXTURE = {  # fourth phase: what is to be kept, while guidance is learnt beside it
    "garment_talk": 8,
    "garment_drawing": 8,
    "picture_infill": 4,
    "scene_drawing": 8,
    "demonstrated": 8,
    "library_text": 28,
    "scene_talk": 16,
}
SETTLING_MIXTURE = {  # fifth phase: photographs to describe, which the fourth saw too little of
    "garment_talk": 40,
    "garment_drawing": 8,
    "picture_infill": 4,
    "scene_drawing": 4,
    "demonstrated": 8,
    "library_text": 16,
    "scene_talk": 16,
}


class Rates(Protocol):
    """What every recipe says of its optimiser; meanings as in `BundledRecipe`."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        ...

    @property
    def decay_steps(self) -> int:
        """Last steps, over which the rate falls."""
        ...

    @property
    def warmup_steps(self) -> int:
        """First steps, over which it rises."""
        ...

    @property
    def learning_rate(self) -> float:
        """Peak rate."""
        ...

    @property
    def average_decay(self) -> float:
        """Decay of the weight average."""
        ...

    @property
    def save_steps(self) -> int:
        """Steps between checkpoints."""
        ...

    @property
    def seed(self) -> int:
        """Of weights, data order and noise."""
        ...

    @property
    def bf16(self) -> bool:
        """Whether to autocast to bfloat16."""
        ...


@dataclass(frozen=True)
class BundledRecipe:
    """Sizes and rates.

    Attributes:
        steps: optimiser steps in all, the decay included; one cycle of the mixture each.
        decay_steps: last steps, over which the rate falls to zero.
        warmup_steps: first steps, over which it rises.
        learning_rate: peak rate of Muon and AdamW.
        average_decay: decay of the weight average that is shipped.
        seed: decides weights, data order and noise.
        hidden_size: width.
        num_layers: depth.
        intermediate_size: width inside the MLP.
        save_steps: steps between checkpoints.
        bf16: autocast to bfloat16 where the processor knows it.
        compile_layers: compile each layer with torch.compile (1.55 times the samples per CPU second
            here, after a minute of compiling).
        mixture: samples of each source in a cycle.
        text_full_share: share of the times at which a text block is masked whole.
        short_share: share of the library's stretches that are cut into short blocks.
        infill_share: share of the library's stretches that have holes.
        line_share: share of those whose hole is a line.
        guided_rows: scenes of each step that are drawn as the guided model draws them.
        guidance_scale: of that model, which is the one that the run goes on from.
        guided_temperature: at which scenes are drawn.
        guided_weight: factor on the divergence from it.
    """

    steps: int = 8900
    decay_steps: int = 2500
    warmup_steps: int = 100
    learning_rate: float = 4e-3
    average_decay: float = 0.995
    seed: int = 0
    hidden_size: int = 192
    num_layers: int = 6
    intermediate_size: int = 512
    save_steps: int = 200
    bf16: bool = True
    compile_layers: bool = False
    mixture: Mapping[str, int] = field(default_factory=lambda: MIXTURE)
    text_full_share: float = 0.0
    short_share: float = 0.0
    infill_share: float = 0.2
    line_share: float = 0.0
    guided_rows: int = 0
    guidance_scale: float = 1.0
    guided_temperature: float = 1.0
    guided_weight: float = 1.0

    def __post_init__(self) -> None:
        """Check that warm-up and decay fit into the run."""
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps + decay_steps must be <= steps, got {self.warmup_steps} + "
                f"{self.decay_steps} > {self.steps}"
            )


def drafting_recipe(**given: Any) -> BundledRecipe:
    """The second phase: more text, canvases masked whole and short ones; goes on from the first.

    The canvas becomes a better draft of what the context rows read (`self_speculative`), and text
    fills a third of the mixture instead of a sixtieth.
    """
    standard: dict[str, Any] = {
        "steps": 10150,
        "warmup_steps": 50,
        "decay_steps": 600,
        "learning_rate": 1.5e-3,
        "mixture": DRAFTING_MIXTURE,
        "text_full_share": 0.3,
        "short_share": 0.75,
    }
    return BundledRecipe(**(standard | given))


def filling_recipe(**given: Any) -> BundledRecipe:
    """The third phase: scenes to draw and lines to fill; goes on from the second."""
    changed: dict[str, Any] = {
        "steps": 11500,
        "mixture": FILLING_MIXTURE,
        "infill_share": 0.6,
        "line_share": 0.75,
    }
    return drafting_recipe(**(changed | given))


def guiding_recipe(**given: Any) -> BundledRecipe:
    """The fourth phase: scenes are drawn by one branch as guidance drew them; after the third."""
    changed: dict[str, Any] = {
        "steps": 12300,
        "decay_steps": 400,
        "mixture": GUIDING_MIXTURE,
        "guided_rows": 64,
        "guidance_scale": 1.4,
        "guided_temperature": 0.4,
        "guided_weight": 8.0,
    }
    return filling_recipe(**(changed | given))


def settling_recipe(**given: Any) -> BundledRecipe:
    """The fifth phase: photographs are described again; scenes are drawn as before it."""
    changed: dict[str, Any] = {
        "steps": 12520,
        "warmup_steps": 20,
        "decay_steps": 160,
        "learning_rate": 1e-3,
        "average_decay": 0.98,
        "mixture": SETTLING_MIXTURE,
        "guided_rows": 48,
        "guidance_scale": 1.0,
    }
    return guiding_recipe(**(changed | given))
