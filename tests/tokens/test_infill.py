"""Infilling: one canvas behind a fixed prompt, the known part pinned, exactly the holes wanted."""

import numpy as np
import pytest

from unidiff.tokens.infill import (
    infill_prompt_length,
    infill_sequence,
    masked_ids,
    split_at_markers,
)
from unidiff.tokens.prompts import layout_for_tokenizer
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.tokens.text import build_text_tokenizer

MASK, BOS, END, IMAGE, IMAGE_END, INFILL = 1, 2, 3, 7, 8, 13


@pytest.fixture(scope="module")
def encoder():
    tokenizer = build_text_tokenizer(["a photo of a sneaker."] * 9, 290)
    layout = layout_for_tokenizer(tokenizer, {"image": 9}, image_grid=(2, 2))
    return SequenceEncoder(tokenizer, layout)


def test_text_ids_with_holes_end_with_a_pinned_end(encoder):
    row = infill_sequence(
        encoder, [{"type": "text", "ids": [50, 51, 52], "is_hole": [False, True, False]}]
    )
    assert row.ids_L.tolist() == [BOS, INFILL, 50, 51, 52, END]
    assert row.is_wanted_L.tolist() == [False] * 3 + [True] + [False] * 2
    assert masked_ids(row, encoder.layout).tolist() == [BOS, INFILL, 50, MASK, 52, END]


def test_pieces_and_hole_lengths_give_the_same_layout_as_ids(encoder):
    row = infill_sequence(encoder, [{"type": "text", "text": ["a photo", 2, "."]}])
    before, after = encoder.text("a photo").ids_L, encoder.text(".").ids_L
    assert row.ids_L.tolist() == [BOS, INFILL, *before, MASK, MASK, *after, END]
    assert row.is_wanted_L.sum() == 2
    same = infill_sequence(
        encoder,
        [{"type": "text", "ids": row.ids_L[2:-1], "is_hole": row.is_wanted_L[2:-1]}],
    )
    assert (masked_ids(same, encoder.layout) == masked_ids(row, encoder.layout)).all()


def test_an_image_comes_before_the_text_between_pinned_delimiters(encoder):
    hole = np.array([[True, False], [False, True]])
    row = infill_sequence(
        encoder,
        [
            {"type": "image", "codes": np.arange(4), "is_hole": hole},
            {"type": "text", "text": "a"},
        ],
    )
    start = encoder.layout.ranges["image"].start
    (letter,) = encoder.text("a").ids_L
    codes = [start, start + 1, start + 2, start + 3]
    assert row.ids_L.tolist() == [BOS, INFILL, IMAGE, *codes, IMAGE_END, letter, END]
    assert np.flatnonzero(row.is_wanted_L).tolist() == [3, 6]
    assert row.modality_L.tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert not row.is_wanted_L[: infill_prompt_length(encoder.layout)].any()


def test_without_holes_nothing_is_wanted(encoder):
    row = infill_sequence(encoder, [{"type": "image", "codes": np.arange(4)}])
    assert not row.is_wanted_L.any()


def test_a_space_before_a_marker_belongs_to_the_hole():
    assert split_at_markers("a <|hole|> of<|hole|>", 3) == ["a", 3, " of", 3]
    assert split_at_markers("<|hole|>", 2) == [2]
    assert split_at_markers("a", 2, allow_none=True) == ["a"]


def test_a_text_without_a_marker_is_refused():
    with pytest.raises(ValueError, match="no hole"):
        split_at_markers("a photo", 2)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "smell", "codes": [1]}, "one of the types"),
        ({"type": "text", "ids": [50, 51], "is_hole": [True]}, "is_hole"),
        ({"type": "image", "codes": [1, 2], "is_hole": [True] * 3}, "is_hole"),
        ({"type": "text", "text": ["a", 0]}, "at least 1"),
        ({"type": "text", "text": ["a", 1.5]}, "str or a hole"),
        ({"type": "text", "text": ["a", True]}, "str or a hole"),
    ],
)
def test_malformed_parts_are_refused(encoder, part, reason):
    with pytest.raises(ValueError, match=reason):
        infill_sequence(encoder, [part])
