"""The likeliest of several answers, by what the model says of each instead of by writing one."""

# Shapes: C choices.

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unidiff.data.blocks import BlockOptions, blocks_row
from unidiff.data.collator import BlockCollator
from unidiff.plugins import Example

from .task import VQA

# One token a block: the chain rule, so the likelihood is exact and not a bound.
_CHAIN = BlockOptions(max_block_length=1, prob_end_fill=0.0)


@torch.inference_mode()
def choice_nats(
    task: VQA, model: Any, processor: Any, example: Example, choices: Sequence[str]
) -> np.ndarray:
    """(C,) negative log-likelihood of each choice as the answer and the end of the turn, in nats.

    Every token is read with the mask in its place and the tokens before it known: the product of
    these laws is the law of block length 1, exactly (DESIGN section 6).

    Args:
        task: builds the conversation.
        model: the checkpoint.
        processor: the checkpoint's.
        example: the picture and the question.
        choices: answers to compare.

    Raises:
        ValueError: if there is no choice.
    """
    if not choices:
        raise ValueError("choices must name at least one answer, got none")
    rows = [_row(task, processor, example, choice) for choice in choices]
    samples = [{"row": row, "key": 0, "stream_position": 0} for row in rows]
    batch = {name: value.to(model.device) for name, value in BlockCollator()(samples).items()}
    return model.nll(batch, exact=True).nats_B.cpu().numpy()


def likeliest(
    task: VQA, model: Any, processor: Any, example: Example, choices: Sequence[str]
) -> str:
    """The choice of least negative log-likelihood; the first of equals."""
    return choices[int(choice_nats(task, model, processor, example, choices).argmin())]


def _row(task: VQA, processor: Any, example: Example, choice: str) -> Any:
    """Training row of the conversation with this answer, one token a block."""
    turn = {"role": "assistant", "content": choice}
    messages = processor.coded([*task.messages(example), turn])
    sequence = processor.encoder.conversation(messages)
    return blocks_row(sequence, processor.layout, _CHAIN, np.random.default_rng(0))
