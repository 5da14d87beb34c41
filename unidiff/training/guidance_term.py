"""Guidance learnt: one branch comes to say what two said under classifier-free guidance.

The teacher is the model as it was; its laws with and without the condition are mixed as decoding
mixes them, and the divergence of the student's conditional law from the mixture is added to the
loss. What is drawn then needs no weaker branch.
"""

# Shapes: B batch, K canvas tokens, N masked positions, V ids.

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unidiff.data.blocks import IGNORED, TrainingRow
from unidiff.data.stream import MixtureStream
from unidiff.data.tasks import RowMaker, drawing_messages
from unidiff.generation.guidance import Guidance
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import MODALITY_IDS

from .laws import MaskedInputs, allowed_law, divergence, rows_of_step, streams_of
from .objective import BlockObjective


@dataclass(frozen=True)
class GuidanceTerm:
    """Divergence from a guided teacher, in nats per masked position of rows that draw a picture.

    Attributes:
        teacher: the model as it was; frozen.
        stream: rows that draw; item i of step s is s * batch_size + i.
        maker: makes the same rows with the condition dropped.
        scale: guidance scale of the teacher.
        temperature: at which the pictures will be drawn; the laws compared are those drawn from.
        weight: factor on the divergence.
        batch_size: rows of one step.
        objective: noises the rows; both branches show the same positions.

    Source: distillation of guided diffusion, stage one (arXiv 2210.03142), at one scale and on the
        laws of masked tokens: own derivation, checked in tests/training/test_guidance_term.py.
    """

    teacher: UniDiffForBlockDiffusion
    stream: MixtureStream
    maker: RowMaker
    scale: float
    temperature: float = 1.0
    weight: float = 1.0
    batch_size: int = 64
    objective: BlockObjective = field(default_factory=lambda: BlockObjective(ar_weight=0.0))

    def __post_init__(self) -> None:
        """Check the numbers and freeze the teacher."""
        if min(self.scale, self.temperature) <= 0.0 or self.weight < 0.0 or self.batch_size < 1:
            raise ValueError(
                "a guidance term needs scale and temperature > 0, weight >= 0 and batch_size >= 1, "
                f"got {self.scale}, {self.temperature}, {self.weight} and {self.batch_size}"
            )
        self.teacher.eval().requires_grad_(False)

    def __call__(self, model: nn.Module, base: nn.Module, step: int) -> Tensor:
        """The weighted divergence of one step.

        Args:
            model: the student, possibly wrapped.
            base: `UniDiffForBlockDiffusion` inside it.
            step: optimiser step, which decides the rows.
        """
        rows = rows_of_step(self.stream, step, self.batch_size)
        asked, dropped = self.branches(rows, base)
        with torch.no_grad():
            guided_NV = Guidance((self.scale,)).mix(
                torch.cat([asked.logits(self.teacher), dropped.logits(self.teacher)])
            )
        laws = (
            allowed_law(logits_NV / self.temperature, asked.modality_N, self.teacher.config)
            for logits_NV in (guided_NV, asked.logits(model))
        )
        return self.weight * divergence(*laws).mean()

    def branches(
        self, samples: Sequence[Mapping[str, Any]], base: Any
    ) -> tuple[MaskedInputs, MaskedInputs]:
        """The rows with their condition and without it, masked at the same positions.

        Args:
            samples: of the stream.
            base: gives the configuration and the device.
        """
        weaker = [{**one, "row": dropped_row(self.maker, one["row"])} for one in samples]
        streams = [streams_of(rows, base) for rows in (samples, weaker)]
        is_masked_BK, _ = self.objective.corrupt(streams[0])
        asked, dropped = (MaskedInputs.of(one, is_masked_BK, base.config) for one in streams)
        return asked, dropped


def dropped_row(maker: RowMaker, row: TrainingRow) -> TrainingRow:
    """The row that draws the same picture with its condition dropped.

    Raises:
        ValueError: if the row does not draw one whole picture.
    """
    layout = maker.encoder.layout
    is_code = (row.modality_ids == MODALITY_IDS["image"]) & (row.labels != IGNORED)
    length = math.prod(layout.image_grid)
    if is_code.sum() != length or (row.labels[~is_code] != IGNORED).any():
        raise ValueError(
            f"guidance is learnt from rows that draw one picture of {length} codes "
            f"and nothing else, got {int(is_code.sum())} codes"
        )
    codes = layout.decode("image", row.input_ids[is_code])
    return maker.conversation(drawing_messages(None, codes), np.random.default_rng(0))
