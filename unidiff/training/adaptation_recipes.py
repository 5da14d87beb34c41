"""What an autoregressive checkpoint becomes (`unidiff adapt`): attention, reading, blocks, loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unidiff.data.blocks import BlockOptions

from .growing_blocks import GrowingBlocks, doubling
from .lora import LoRAOptions
from .objective import BlockObjective, ModalityLoss
from .trainer import Objective

PATTERNS = ("block_causal", "causal_context")


@dataclass(frozen=True)
class AdaptationRecipe:
    """How a causal model learns to fill blocks.

    Attributes:
        attention_pattern: `block_causal`: context attends within its block of a grid too;
            `causal_context`: it stays causal, so that blocks begin anywhere and the `ar` mode is
            kept.
        logits_shift: 1: a row goes on predicting its successor, as in the source; 0: it learns to
            predict itself.
        block_length: of the grid; under `causal_context` the longest block.
        min_block_length: under `causal_context`, the shortest block; lengths are log-uniform.
        first_block_length: on a grid, length that blocks have at first; it doubles over the first
            half of the run. None: `block_length` throughout.
        complementary: each block is noised twice, the second time where the first was not.
        elbo_weights: weight a masked token as the ELBO asks; otherwise all alike.
        ar_weight: factor on the autoregressive loss of the context, which the source came with.
        decoding: keywords of `generate()` that are saved with the result.
    """

    attention_pattern: str = "block_causal"
    logits_shift: int = 0
    block_length: int = 4
    min_block_length: int = 1
    first_block_length: int | None = None
    complementary: bool = False
    elbo_weights: bool = True
    ar_weight: float = 0.0
    decoding: Mapping[str, Any] = field(
        default_factory=lambda: {"unmasking_strategy": "threshold", "confidence_threshold": 0.9}
    )

    def __post_init__(self) -> None:
        """Check what the model's configuration does not."""
        if self.attention_pattern not in PATTERNS:
            raise ValueError(
                f"attention_pattern must be one of {PATTERNS}, got {self.attention_pattern!r}"
            )
        if self.ar_weight < 0:
            raise ValueError(f"ar_weight must be >= 0, got {self.ar_weight}")
        if self.first_block_length is not None:
            if self.attention_pattern != "block_causal":
                raise ValueError(
                    "first_block_length belongs to a grid (block_causal): leave it out"
                )
            doubling(self.first_block_length, self.block_length)

    def blocks(self) -> BlockOptions:
        """How wanted tokens become blocks."""
        is_grid = self.attention_pattern == "block_causal"
        return BlockOptions(
            max_block_length=self.block_length,
            min_block_length=1 if is_grid else self.min_block_length,
            grid=is_grid,
        )

    def objective(self, seed: int, num_items: int) -> Objective:
        """The loss of a run over `num_items` samples."""
        objective = BlockObjective(
            text=ModalityLoss(elbo_weights=self.elbo_weights),
            ar_weight=self.ar_weight,
            complementary=self.complementary,
            seed=seed,
        )
        if self.first_block_length is None:
            return objective
        return GrowingBlocks(
            objective, doubling(self.first_block_length, self.block_length), num_items // 2
        )


RECIPES = {
    # SDAR (arXiv 2510.06303): loss over masked tokens weighted by 1 / t, a grid of four.
    "sdar": AdaptationRecipe(),
    # Fast-dLLM v2 (arXiv 2509.26328): complementary masks, unweighted, rows predict successors.
    "fast-dllm": AdaptationRecipe(
        logits_shift=1, block_length=32, complementary=True, elbo_weights=False
    ),
    # Our own pattern (DESIGN decisions 4 and 5): what the source could do, it still does.
    "causal": AdaptationRecipe(
        attention_pattern="causal_context",
        logits_shift=1,
        block_length=32,
        complementary=True,
        ar_weight=0.5,
    ),
}


@dataclass(frozen=True)
class AdaptationRates:
    """Sizes and rates of a run; `training_arguments` takes them.

    Attributes:
        steps: optimiser steps.
        micro_batch: samples of one forward; it divides the samples of a step.
        learning_rate: peak rate of Muon and AdamW.
        average_decay: decay of the weight average that is the result; 0: the last weights are.
        save_steps: steps between checkpoints.
        seed: of order, noise and fresh weights.
        bf16: autocast to bfloat16 where the processor knows it.
        lora: what is adapted; None: every weight.
    """

    steps: int = 1000
    micro_batch: int = 8
    learning_rate: float = 1e-3
    average_decay: float = 0.99
    save_steps: int = 100
    seed: int = 0
    bf16: bool = True
    lora: LoRAOptions | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        if min(self.steps, self.micro_batch, self.save_steps) < 1 or self.learning_rate <= 0:
            raise ValueError(
                "an adaptation needs steps, micro_batch, save_steps >= 1 and learning_rate > 0, "
                f"got {self.steps}, {self.micro_batch}, {self.save_steps}, {self.learning_rate}"
            )

    @property
    def warmup_steps(self) -> int:
        """First twentieth of the steps."""
        return max(1, self.steps // 20)

    @property
    def decay_steps(self) -> int:
        """Last three tenths of the steps."""
        return max(1, 3 * self.steps // 10)
