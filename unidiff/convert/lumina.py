"""Lumina-DiMOO: LLaDA with rows for the codes of pictures, which it reads, draws and edits.

A picture is its codes row by row with a token behind each row, one position after the other, so
that its shape can be read off them. It is drawn between `<answer>` and `</answer>`, which is there
from the beginning. MMaDA-Parallel-A has the same layout.

Its authors draw in 64 steps at temperature 1 with the logits 5 c - 4 u, where u is read with
`<uncondition>` in the place of the wish: `guidance_scale=5`. They crop a picture to the best of
many shapes, at random; here every picture has the layout's grid and is cropped at its centre.

Ids, prompts and decoding: Alpha-VLLM's `config.py`, `utils/`, `train/` and `inference/`, in own
words.
"""

from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from unidiff.tokens.layout import IdRange, TokenLayout

from .family import ForeignFolder
from .llada import LLADA, TABLE, settings

ARCHITECTURE = "LLaDAForMultiModalGeneration"  # under LLaDA's `model_type`
_NUM_CODES = 8192  # the last rows of the embedding
_ROW_END = 126084
_PICTURE = 126349, 126350  # before and behind one
_NOTHING = 126351  # in the place of a wish, for guidance
_ANSWER, _ANSWER_END = 126354, 126355
_GRID = (32, 32)  # of 512 x 512 pixels, the authors' default
_TAGS = ("<system>", "</system>", "<user>", "</user>")
_DRAW = "Generate an image according to the text prompt."
_EDIT = "Generate an image applying the following editing instruction based on the original image."
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
# The same around pictures, which stand behind the text of their turn.
_PROMPTS = """\
{%- set read = namespace(draws='image' in want, pictures=false, turns=[]) -%}
{%- for message in messages -%}
{%- set said = namespace(text='', pictures='') -%}
{%- if message['content'] is string -%}
{%- set said.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{%- set said.pictures = said.pictures + part['slot'] -%}
{%- else -%}
{%- set said.text = said.text + ('NOTHING' if part['type'] == 'uncond' else part['slot']) -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if said.pictures and message['role'] == 'assistant' -%}
{%- set read.draws = true -%}
{%- elif said.pictures -%}
{%- set read.pictures = true -%}
{%- endif -%}
{%- set turn = {'role': message['role'], 'content': said.text + said.pictures} -%}
{%- set read.turns = read.turns + [turn] -%}
{%- endfor -%}
{%- if read.draws or read.pictures -%}
{%- if read.turns[0]['role'] != 'system' -%}
{%- set task = ('EDIT' if read.pictures else 'DRAW') if read.draws else 'READ' -%}
{{ '<system>' + task + '</system>' }}
{%- endif -%}
{%- for turn in read.turns -%}
{%- if turn['role'] == 'assistant' -%}
{{ 'ANSWER' + turn['content'] + 'FINISHED' }}
{%- else -%}
{{ '<' + turn['role'] + '>' + turn['content'] + '</' + turn['role'] + '>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ANSWER' }}{%- endif -%}
{%- else -%}
{%- set messages = read.turns -%}
CONVERSATION
{%- endif -%}"""


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
        closes_canvas=True,
        canvas_end_token_id=_ANSWER_END,
        row_end_token_id=_ROW_END,
        is_straight=True,
    )
    return {**own, "vocab_size": rows, "eos_token_id": ends, "token_layout": layout.to_dict()}


def prompts(folder: ForeignFolder, tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The chat template with what pictures need around it; see `Family.prompts`.

    Raises:
        ValueError: if the tokenizer lacks a tag.
    """
    ids = {"NOTHING": _NOTHING, "ANSWER": _ANSWER, "FINISHED": _ANSWER_END}
    spelled = {word: tokenizer.convert_ids_to_tokens(one) for word, one in ids.items()}
    lacking = [tag for tag in _TAGS if tag not in folder.special_ids]
    lacking += [str(ids[word]) for word, tag in spelled.items() if tag is None]
    if lacking:
        raise ValueError(
            f"the tokenizer of {folder.path} lacks the tokens {lacking}, which Lumina-DiMOO writes "
            "around turns: take the tokenizer that was published with the weights"
        )
    text = _PROMPTS
    tasks = {"EDIT": _EDIT, "DRAW": _DRAW, "READ": _SYSTEM}
    for word, said in {**spelled, **tasks}.items():
        text = text.replace(f"'{word}'", repr(said))
    return text.replace("CONVERSATION", template)


LUMINA = replace(LLADA, name="lumina-dimoo", settings=lumina, template=TEMPLATE, prompts=prompts)
