"""Lumina-DiMOO: LLaDA with rows for the codes of pictures, which it reads, draws and edits.

A picture is its codes row by row with a token behind each row, one position after the other, so
that its shape can be read off them. MMaDA-Parallel-A has the same layout. Ids, prompts and
decoding: Alpha-VLLM's `config.py`, `utils/` and `inference/`, in own words.
"""

from dataclasses import replace
from typing import Any

from unidiff.tokens.layout import IdRange, TokenLayout

from .family import ForeignFolder
from .llada import LLADA, TABLE, settings

ARCHITECTURE = "LLaDAForMultiModalGeneration"  # under LLaDA's `model_type`
_NUM_CODES = 8192  # the last rows of the embedding
_ROW_END = 126084
_PICTURE = 126349, 126350  # before and behind one
_ANSWER_END = 126355
_GRID = (32, 32)  # of 512 x 512 pixels, the authors' default
_SYSTEM = (
    "You are a multimodal model that can process both text and images. Answer the following "
    "question based on the provided images. Analyze each image and combine relevant details to "
    "answer."
)
# Each turn stands in a tag of its role, and what the model says in one of its own.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<system>" + _SYSTEM + "</system>{% endif %}"
    "{% for message in messages %}"
    "{% set tag = 'answer' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<' + tag + '>' + message['content'] + '</' + tag + '>' }}{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)


def lumina(folder: ForeignFolder) -> dict[str, Any]:
    """LLaDA whose last rows stand for the codes of pictures.

    Raises:
        ValueError: if there are too few rows, as where another model has the same architecture.
    """
    own, rows = settings(folder), folder.shapes[TABLE][0]
    first = rows - _NUM_CODES
    if first <= _ANSWER_END:
        raise ValueError(
            f"{folder.path} has {rows} rows of the embedding; Lumina-DiMOO has those of "
            f"{_ANSWER_END + 1} tokens and of {_NUM_CODES} codes of pictures"
        )
    ends = [*folder.end_ids, _ANSWER_END]
    layout = TokenLayout(
        ranges={"text": IdRange(0, first), "image": IdRange(first, _NUM_CODES)},
        mask_token_id=own["mask_token_id"],
        pad_token_id=own["pad_token_id"],
        end_token_ids=tuple(ends),
        image_grid=_GRID,
        delimiters={"image": _PICTURE},
        row_end_token_id=_ROW_END,
        is_straight=True,
    )
    return {**own, "vocab_size": rows, "eos_token_id": ends, "token_layout": layout.to_dict()}


LUMINA = replace(LLADA, name="lumina-dimoo", settings=lumina, template=TEMPLATE)
