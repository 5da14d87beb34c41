"""Tasks that are a conversation: the user shows and says something, the model answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature

from unidiff.data.blocks import BlockOptions, TrainingRow, blocks_row

from .task import Example, Task

Message = Mapping[str, Any]


class ChatTask(Task):
    """A task whose prompt is a conversation and whose answer is one turn.

    Attributes:
        wanted: modality of the answer, "text" by default.
        blocks: how wanted text is cut into blocks in training.
    """

    wanted: str = "text"
    blocks: BlockOptions = BlockOptions()

    def messages(self, example: Example) -> Sequence[Message]:
        """The conversation up to the answer, as `UniDiffProcessor.apply_chat_template` takes it."""
        raise NotImplementedError

    def answer(self, example: Example) -> str | Sequence[Mapping[str, Any]]:
        """Content of the answer's turn in training: a str, or parts."""
        raise NotImplementedError

    def build(self, processor: Any, example: Example) -> BatchFeature:
        """Arguments of `generate()`: the conversation, and a whole canvas unless text is wanted."""
        return processor.build(self.messages(example), want=self.wanted)

    def parse(self, processor: Any, ids: np.ndarray, inputs: BatchFeature) -> Any:
        """The answer: a str, a picture, an action chunk."""
        return processor.decode_response(ids, inputs)

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The conversation with its answer, the answer wanted."""
        turn = {"role": "assistant", "content": self.answer(example)}
        messages = processor.coded([*self.messages(example), turn])
        sequence = processor.encoder.conversation(messages)
        return blocks_row(sequence, processor.layout, self.blocks, rng)


def user(*content: str | Mapping[str, Any]) -> Message:
    """A user's turn; a str is a text part."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"role": "user", "content": parts}


def shown(image: Any) -> Mapping[str, Any]:
    """Part that shows a picture: PIL image, array, path, or {"codes": ...}."""
    part = image if isinstance(image, Mapping) else {"image": image}
    return {**part, "type": "image"}
