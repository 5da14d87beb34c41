"""DreamOn: Dream with two tokens more, by which holes of a text grow and shrink.

Ids and decoding: DreamLM's `generation_utils.py` and the checkpoint's `generation_config.json`, in
own words; what the two tokens do is `generation/stretching.py`.
"""

from dataclasses import replace
from typing import Any

from unidiff.tokens.layout import IdRange, TokenLayout

from .family import ForeignFolder
from .llama_like import DREAM, dream


def expand_id(folder: ForeignFolder) -> int | None:
    """Id of the token that asks for one position more; None: this is no DreamOn."""
    found: int | None = folder.decoding.get("expand_token_id")
    return folder.special_ids.get("<|expand|>") if found is None else found


def dreamon(folder: ForeignFolder) -> dict[str, Any]:
    """Dream whose layout names the two tokens, and those between which a text has its holes.

    What ends a text may also delete a position.

    Raises:
        ValueError: if nothing says which token deletes one.
    """
    own = dream(folder)
    ends = folder.end_ids
    delete = folder.decoding.get("delete_token_id", folder.special_ids.get("<|delete|>"))
    if delete is None and not ends:
        raise ValueError(
            f"{folder.path} names neither delete_token_id in generation_config.json nor an end of "
            "texts, which deletes positions where there is none"
        )
    begin, end = (folder.named_token(f"{name}_token") for name in ("bos", "eos"))
    layout = TokenLayout(
        ranges={"text": IdRange(0, own["vocab_size"])},
        mask_token_id=own["mask_token_id"],
        pad_token_id=own["pad_token_id"] or 0,
        end_token_ids=tuple(ends),
        delimiters={} if begin is None or end is None else {"text": (begin, end)},
        expand_token_id=expand_id(folder),
        delete_token_id=ends[0] if delete is None else delete,
    )
    return {**own, "token_layout": layout.to_dict()}


DREAMON = replace(
    DREAM,
    name="dreamon",
    settings=dreamon,
    decoding={**DREAM.decoding, "top_p": 0.9, "max_infill_tokens": 64},
)
