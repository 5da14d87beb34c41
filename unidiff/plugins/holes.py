"""Tasks that fill holes: one canvas in which what is known is pinned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature

from unidiff.data.blocks import TrainingRow, one_block_row
from unidiff.tokens.infill import infill_prompt_length, infill_sequence
from unidiff.tokens.prompts import infill_inputs

from .task import Example, Task

Part = Mapping[str, Any]


class InfillTask(Task):
    """A task whose canvas holds known and wanted tokens side by side."""

    def parts(self, processor: Any, example: Example) -> Sequence[Part]:
        """Image and text of the canvas with their holes, as `infill_sequence` takes them.

        In training the ids and codes of the holes are the answer; at decoding they are not read.
        """
        raise NotImplementedError

    def build(self, processor: Any, example: Example) -> BatchFeature:
        """Arguments of `generate()`: the canvas, its holes masked."""
        sequence = infill_sequence(processor.encoder, self.parts(processor, example))
        return infill_inputs(sequence, processor.layout)

    def parse(self, processor: Any, ids: np.ndarray, inputs: BatchFeature) -> Any:
        """The whole canvas: a text, a picture, or a dictionary of both."""
        return processor.decode_response(ids, inputs)

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The canvas with its answer, the holes wanted."""
        del rng
        sequence = infill_sequence(processor.encoder, self.parts(processor, example))
        first = infill_prompt_length(processor.layout)
        return one_block_row(sequence, processor.layout, first=first)
