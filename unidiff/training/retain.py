"""Forgetting control: the adapted model is held to what its base says on other tasks.

A retain batch is noised like any other, and the divergence of the base's law from the adapted one
is added to the loss. The base is the same model with its adapter off, so it costs no memory.
"""

# Shapes: B batch, K canvas tokens, N masked positions.

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.data.stream import MixtureStream
from unidiff.model.streams import TrainingStreams

from .laws import MaskedInputs, divergence, rows_of_step, streams_of
from .objective import BlockObjective

WEIGHTINGS = ("uniform", "low_noise")


@dataclass(frozen=True)
class RetainTerm:
    """Divergence from the base, in nats per response token of the retain batch.

    Attributes:
        stream: rows of tasks that shall not be forgotten; item i of step s is s * batch_size + i.
        weight: factor on the divergence; 0 switches the term off.
        batch_size: rows of one step.
        weighting: "uniform", or "low_noise": a masked token counts by the share of its block that
            is visible, so that what is nearly known is kept first.
        objective: noises the batch.

    Source: Diff-Tuning (arXiv 2406.00773) retains at low noise and adapts at high noise, by a
        weight of the time; here the divergence replaces its replay of generated samples, and the
        weight is that of the masked share. `uniform` is our default: under `low_noise` a canvas
        that is masked whole counts nothing, and a one-word answer is decoded from just that.
    """

    stream: MixtureStream
    weight: float = 1.0
    batch_size: int = 16
    weighting: str = "uniform"
    objective: BlockObjective = field(default_factory=lambda: BlockObjective(ar_weight=0.0))

    def __post_init__(self) -> None:
        """Check the numbers and the name."""
        if self.weight < 0.0 or self.batch_size < 1:
            raise ValueError(
                f"retain needs weight >= 0 and batch_size >= 1, got {self.weight} and "
                f"{self.batch_size}"
            )
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {WEIGHTINGS}, got {self.weighting!r}")

    def __call__(self, model: nn.Module, base: Any, step: int) -> Tensor:
        """The weighted divergence of one step.

        Args:
            model: adapted, possibly wrapped.
            base: `UniDiffForBlockDiffusion` inside it, whose adapters can be switched off.
            step: optimiser step, which decides the rows.
        """
        streams = streams_of(rows_of_step(self.stream, step, self.batch_size), base)
        is_masked_BK, _ = self.objective.corrupt(streams)
        rows = MaskedInputs.of(streams, is_masked_BK, base.config)
        with adapters_off(base), torch.no_grad():
            before_NV = rows.law(base, base.config)
        divergence_N = divergence(before_NV, rows.law(model, base.config))
        weight_N = torch.ones_like(divergence_N)
        if self.weighting == "low_noise":
            weight_N = visible_share(streams, is_masked_BK)[is_masked_BK]
        return self.weight * (divergence_N * weight_N).sum() / max(1, len(divergence_N))


def visible_share(streams: TrainingStreams, is_masked_BK: Tensor) -> Tensor:
    """(B, K) float32 share of each position's block that shows its own token."""
    can_mask_BK = streams.can_mask_BK
    group_BK = streams.canvas_group_BK.clamp(min=0)  # padding belongs to no block
    size_G = torch.zeros(int(group_BK.max()) + 1, device=group_BK.device)
    masked_G = size_G.clone()
    size_G.index_add_(0, group_BK[can_mask_BK], torch.ones_like(size_G)[group_BK[can_mask_BK]])
    masked_G.index_add_(0, group_BK[can_mask_BK], is_masked_BK[can_mask_BK].to(masked_G))
    return (1.0 - masked_G / size_G.clamp(min=1.0))[group_BK]


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """The base alone, for a while; which adapter was active, and what is trained, comes back."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    active = model.active_adapters()
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
        model.set_adapter(active)
        for parameter in trained:
            parameter.requires_grad_(True)
