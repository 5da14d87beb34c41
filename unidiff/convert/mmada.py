"""MMaDA: LLaDA that reads and draws pictures.

Layout, ids and prompts: Gen-Verse's `modeling_mmada.py`, `prompting_utils.py` and
`inference_{t2i,mmu}.py`, in own words.
"""

from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from unidiff.tokens.layout import IdRange, TokenLayout

from .family import ForeignFolder
from .llada import LLADA, TABLE, written_settings

# Ids of LLaDA's tokenizer that were reserved; a tokenizer that has the names counts before them.
_SPECIAL_IDS = {
    "<|soi|>": 126084,  # a picture begins
    "<|eoi|>": 126085,  # a picture ends
    "<|t2i|>": 126088,  # task: draw
    "<|mmu|>": 126089,  # task: answer about a picture
}
# A wish for a picture is the task, the beginning of a text, the wish, and the end of a text. A
# question about pictures is the task, the pictures, and the conversation as it is without them.
_PROMPTS = """\
{%- set read = namespace(pictures='', turns=[], wish='') -%}
{%- for message in messages -%}
{%- set said = namespace(text='') -%}
{%- if message['content'] is string -%}
{%- set said.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{%- set read.pictures = read.pictures + part['slot'] -%}
{%- else -%}
{%- set said.text = said.text + part['slot'] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set read.wish = read.wish + said.text -%}
{%- set read.turns = read.turns + [{'role': message['role'], 'content': said.text}] -%}
{%- endfor -%}
{%- if 'image' in want -%}
{%- if read.pictures -%}
{{ raise_exception('MODEL draws from text, not from pictures') }}
{%- endif -%}
{{ 'DRAW' + bos_token + read.wish + eos_token }}
{%- else -%}
{%- if read.pictures -%}{{ 'READ' + read.pictures }}{%- endif -%}
{%- set messages = read.turns -%}
CONVERSATION
{%- endif -%}"""


def special_id(folder: ForeignFolder, name: str) -> int:
    """Id of a token of pictures or tasks.

    Raises:
        ValueError: if the tokenizer neither names it nor reserves it.
    """
    found = folder.special_ids.get(name, _SPECIAL_IDS[name])
    if folder.num_ids is None or found >= folder.num_ids:
        raise ValueError(
            f"{folder.path}: the tokenizer has no {name} and {folder.num_ids} ids, where MMaDA "
            f"reserves the id {_SPECIAL_IDS[name]} for it"
        )
    return found


def mmada_settings(folder: ForeignFolder) -> dict[str, Any]:
    """LLaDA whose rows behind the tokenizer's ids stand for the codes of pictures.

    Codes begin at the number of the tokenizer's ids, among the rows that pad LLaDA's table.
    """
    own = written_settings(folder)
    codes, side = folder.config.get("codebook_size", 8192), folder.square_side("num_vq_tokens")
    first = folder.num_ids
    if first is None:
        raise ValueError(f"{folder.path} lacks tokenizer.json, which says where the codes begin")
    layout = TokenLayout(
        ranges={"text": IdRange(0, first), "image": IdRange(first, codes)},
        mask_token_id=own["mask_token_id"],
        pad_token_id=own["pad_token_id"],
        end_token_ids=tuple(folder.end_ids),
        image_grid=(side, side),
        delimiters={"image": (special_id(folder, "<|soi|>"), special_id(folder, "<|eoi|>"))},
        closes_canvas=True,
        is_straight=True,
    )
    return {**own, "vocab_size": folder.shapes[TABLE][0], "token_layout": layout.to_dict()}


def prompts(folder: ForeignFolder, tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The chat template of conversations with pictures around the one of those without.

    Args:
        folder: the checkpoint.
        tokenizer: its tokenizer, which spells the ids of the tasks.
        template: of conversations without pictures.
    """
    draw, read = (
        tokenizer.convert_ids_to_tokens(special_id(folder, name)) for name in ("<|t2i|>", "<|mmu|>")
    )
    return drawing_prompts("MMaDA", draw, read, template)


def drawing_prompts(model: str, draw: str, read: str, template: str) -> str:
    """A template of conversations with pictures.

    Args:
        model: its name, for errors.
        draw: the token that asks for a picture.
        read: the token before pictures that are asked about.
        template: of conversations without pictures.
    """
    text = _PROMPTS.replace("MODEL", model)
    text = text.replace("'DRAW'", repr(draw)).replace("'READ'", repr(read))
    return text.replace("CONVERSATION", template)


MMADA = replace(LLADA, name="mmada", settings=mmada_settings, prompts=prompts)
