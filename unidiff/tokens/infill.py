"""Infilling as one canvas: the known part is pinned, the holes are wanted.

The sequence is `<|bos|><|infill|>` and then one canvas: first the image, if there is one, as
`<|image|>`, its codes, `<|/image|>`; then the text, if there is one; then `<|end|>`. A checkpoint
of others whose texts have ids of their own around them has these in place of the specials. Training
and the processor build it here, so both see the same tokens. Knows nothing of models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .layout import TokenLayout
from .sequence import SequenceEncoder, TokenSequence, join, run_of

HOLE_MARKER = "<|hole|>"


def infill_sequence(encoder: SequenceEncoder, parts: Sequence[Mapping[str, Any]]) -> TokenSequence:
    """The prompt and canvas of an infilling; exactly the holes are wanted.

    Args:
        encoder: tokenizer and layout.
        parts: in the order image, text; either may be left out. One part is
            `{"type": "image", "codes": ints, "is_hole": bools of the same shape}`, likewise any
            other modality with codes, or
            `{"type": "text", "ids": (n,) ids, "is_hole": (n,) bool}`, or
            `{"type": "text", "text": str or a list of str and int}`, where an int stands for a
            hole of that many tokens whose ids are the mask id. Without `is_hole` nothing is wanted.

    Returns:
        `TokenSequence` whose first `infill_prompt_length` tokens are the prompt.

    Raises:
        ValueError: if a part's type is unknown, its shapes differ or a hole's length is below 1,
            or the checkpoint has no ids that stand around an infilling.
    """
    canvas = [_part(encoder, part) for part in parts]
    if "text" in encoder.layout.delimiters:
        opening, closing = (run_of([one], "text") for one in encoder.layout.delimiters["text"])
        return join([opening, *canvas, closing])
    begin, task, end = _specials(encoder)
    return join([run_of([begin, task], "text"), *canvas, run_of([end], "text")])


def infill_prompt_length(layout: TokenLayout) -> int:
    """Tokens of the prompt of an infilling: `<|bos|><|infill|>`, or what begins a text."""
    return 1 if "text" in layout.delimiters else 2


def masked_ids(sequence: TokenSequence, layout: TokenLayout) -> np.ndarray:
    """(L,) int64 ids with the mask id where a token is wanted."""
    return np.where(sequence.is_wanted_L, layout.mask_token_id, sequence.ids_L)


def split_at_markers(text: str, hole_length: int, allow_none: bool = False) -> list[str | int]:
    """Text and hole lengths of a string with `HOLE_MARKER` where a hole of `hole_length` tokens is.

    One space before a marker belongs to the hole, because a token holds the space before its word.

    Raises:
        ValueError: if the text has no marker and `allow_none` is False.
    """
    pieces = text.split(HOLE_MARKER)
    if len(pieces) == 1 and not allow_none:
        raise ValueError(
            f"the text has no hole: write {HOLE_MARKER} where one belongs, or pass a list such as "
            "['a photo of ', 2, '.'] in which a number is a hole of that many tokens"
        )
    filled: list[str | int] = []
    for piece in pieces[:-1]:
        filled += [piece.removesuffix(" "), hole_length]
    filled.append(pieces[-1])
    return [piece for piece in filled if piece != ""]


def _specials(encoder: SequenceEncoder) -> list[int]:
    """Ids that stand around an infilling; raises ValueError for checkpoints without."""
    try:
        return [encoder.special(name) for name in ("<|bos|>", "<|infill|>", "<|end|>")]
    except ValueError as error:
        raise ValueError(
            f"this checkpoint was not trained to fill holes ({error}); UniDiff's own are, and of "
            "others BERT, RoBERTa and DreamOn with the special tokens of their tokenizers"
        ) from error


def _part(encoder: SequenceEncoder, part: Mapping[str, Any]) -> TokenSequence:
    """The pinned and wanted tokens of one part."""
    kind = part.get("type")
    if kind != "text" and kind in encoder.layout.modalities:
        sequence = encoder.codes(kind, part["codes"])
        is_wanted = sequence.modality_L == encoder.layout.modality_id(kind)
        is_wanted[is_wanted] = _holes(part, int(is_wanted.sum()))
        return TokenSequence(sequence.ids_L, sequence.modality_L, is_wanted)
    if kind == "text" and "ids" in part:
        sequence = run_of(part["ids"], "text")
        return TokenSequence(sequence.ids_L, sequence.modality_L, _holes(part, len(sequence)))
    if kind == "text":
        pieces = [part["text"]] if isinstance(part["text"], str) else part["text"]
        return join([_text_piece(encoder, piece) for piece in pieces])
    names = encoder.layout.modalities
    raise ValueError(f"an infilling's part must be of one of the types {names}, got {kind!r}")


def _holes(part: Mapping[str, Any], length: int) -> np.ndarray:
    """(length,) bool of a part's holes."""
    if part.get("is_hole") is None:
        return np.zeros(length, dtype=bool)
    is_hole = np.asarray(part["is_hole"], dtype=bool).reshape(-1)
    if len(is_hole) != length:
        raise ValueError(
            f"is_hole must have one entry for each of the {length} {part['type']} tokens, "
            f"got {len(is_hole)}"
        )
    return is_hole


def _text_piece(encoder: SequenceEncoder, piece: str | int) -> TokenSequence:
    """Plain text, or a hole of that many tokens."""
    if isinstance(piece, str):
        return encoder.text(piece)
    if isinstance(piece, bool) or not isinstance(piece, (int, np.integer)):
        raise ValueError(f"a piece of text must be a str or a hole's length, got {type(piece)}")
    if piece < 1:
        raise ValueError(f"a hole needs at least 1 token, got {piece}")
    return run_of([encoder.layout.mask_token_id] * int(piece), "text", wanted=True)
