"""The layout: contiguous ranges, exact codes in, clamped codes out, and who may stand where."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from unidiff.tokens.layout import IdRange, TokenLayout, contiguous_layout


@pytest.fixture(scope="module")
def layout():
    return contiguous_layout(
        {"text": 20, "image": 10, "action": 5, "state": 5},
        reserved_token_ids=(0, 1, 2),
        mask_token_id=1,
        pad_token_id=0,
        end_token_ids=(3,),
        image_grid=(2, 2),
        action_grid=(3, 2),
    )


def test_ranges_follow_each_other(layout):
    assert [(r.start, r.stop) for r in layout.ranges.values()] == [
        (0, 20),
        (20, 30),
        (30, 35),
        (35, 40),
    ]
    assert layout.num_ids == 40


def test_codes_become_ids_and_back(layout):
    codes = np.array([[0, 9], [4, 5]])
    assert layout.encode("image", codes).tolist() == [[20, 29], [24, 25]]
    assert (layout.decode("image", layout.encode("image", codes)) == codes).all()


@pytest.mark.parametrize("codes", [[-1], [10]])
def test_codes_outside_the_range_are_refused(layout, codes):
    with pytest.raises(ValueError, match=r"\[0, 10\)"):
        layout.encode("image", codes)


def test_ids_of_another_modality_are_clamped(layout):
    assert layout.decode("action", np.array([-5, 0, 32, 39, 10**9])).tolist() == [0, 0, 2, 4, 4]


def test_each_id_knows_its_modality_and_strangers_are_text(layout):
    ids = np.array([0, 19, 20, 29, 30, 35, 39, 40, -1])
    assert layout.modality_ids(ids).tolist() == [0, 0, 1, 1, 2, 3, 3, 0, 0]


def test_a_text_position_takes_neither_the_mask_nor_a_reserved_id(layout):
    allowed = layout.allowed_ids("text", 48)
    assert allowed.nonzero().flatten().tolist() == list(range(3, 20))
    assert layout.allowed_ids("image", 48).nonzero().flatten().tolist() == list(range(20, 30))


def test_the_mask_id_is_allowed_nowhere():
    inside = TokenLayout({"text": IdRange(0, 9), "image": IdRange(9, 9)}, 12, 0, (3,))
    assert not inside.allowed_ids("image", 18)[12]


def test_ids_outside_the_vocabulary_are_refused(layout):
    layout.check_ids(torch.tensor([[0, 39]]), 40)
    layout.check_ids(torch.zeros((1, 0), dtype=torch.long), 40)
    for bad in (-1, 40):
        with pytest.raises(ValueError, match="use the processor"):
            layout.check_ids(torch.tensor([0, bad]), 40)


def test_a_modality_that_the_checkpoint_lacks_is_named():
    text_only = contiguous_layout({"text": 9}, mask_token_id=1, pad_token_id=0, end_token_ids=(3,))
    with pytest.raises(ValueError, match="'image'"):
        text_only.encode("image", [0])


def test_grids_belong_to_images_and_actions(layout):
    assert layout.grid_of("image") == (2, 2)
    assert layout.grid_of("action") == (3, 2)
    assert layout.grid_of("text") is None


def test_the_layout_survives_json(layout):
    assert TokenLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_missing_and_unknown_keys_are_refused(layout):
    values = layout.to_dict()
    with pytest.raises(ValueError, match="exactly the keys"):
        TokenLayout.from_dict({**values, "colour": 1})
    values.pop("ranges")
    with pytest.raises(ValueError, match="exactly the keys"):
        TokenLayout.from_dict(values)


@pytest.mark.parametrize("ranges", [{"image": IdRange(0, 4)}, {"text": IdRange(0, 4), "smell": 1}])
def test_text_is_required_and_unknown_modalities_are_refused(ranges):
    with pytest.raises(ValueError, match=r"text|unknown"):
        TokenLayout(ranges, 1, 0, (3,))


@pytest.mark.parametrize("pair", [(-1, 4), (0, 0)])
def test_an_empty_or_negative_range_is_refused(pair):
    with pytest.raises(ValueError, match="id range"):
        IdRange(*pair)


def test_a_further_modality_stands_behind_the_last_id_between_its_delimiters(layout):
    grown = layout.extended("tone", 6, (2, 3)).extended("smell", 2)
    assert grown.modalities == ("text", "image", "action", "state", "tone", "smell")
    assert (grown.delimiters["tone"], grown.range_of("tone")) == ((40, 41), IdRange(42, 6))
    assert (grown.delimiters["smell"], grown.range_of("smell")) == ((48, 49), IdRange(50, 2))
    assert (grown.grid_of("tone"), grown.grid_of("smell"), grown.num_ids) == ((2, 3), None, 52)
    assert grown.modality_ids(np.array([40, 41, 42, 47, 48, 51])).tolist() == [0, 0, 4, 4, 0, 5]
    assert not grown.allowed_ids("text", 64)[40:].any()
    assert {40, 41, 48, 49} <= set(grown.special_ids)
    assert TokenLayout.from_dict(json.loads(json.dumps(grown.to_dict()))) == grown


def test_a_layout_without_further_modalities_is_written_as_before(layout):
    assert set(layout.to_dict()) == {
        "ranges",
        "mask_token_id",
        "pad_token_id",
        "end_token_ids",
        "reserved_token_ids",
        "image_grid",
        "action_grid",
    }


@pytest.mark.parametrize("name", ["image", "Tone", "uncond", "a b", ""])
def test_a_name_that_is_taken_or_no_name_is_refused(layout, name):
    with pytest.raises(ValueError, match="name"):
        layout.extended(name, 4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"delimiters": {}}, "needs delimiters"),
        ({"delimiters": {"tone": (40, 40)}}, "used twice"),
        ({"delimiters": {"tone": (5, 41)}}, "in no modality's range"),
        ({"grids": {"tone": (0, 3)}}, "at least one row"),
        ({"grids": {"smell": (1, 3)}}, "needs delimiters"),
        ({"ranges": {"text": IdRange(0, 20), "tone": IdRange(19, 5)}}, "overlap"),
    ],
)
def test_a_further_modality_that_is_not_described_in_full_is_refused(layout, fields, words):
    grown = layout.extended("tone", 6, (2, 3))
    with pytest.raises(ValueError, match=words):
        replace(grown, **fields)


def test_pictures_of_others_have_delimiters_among_the_ids_of_text(layout):
    theirs = replace(layout, delimiters={"image": (6, 7)}, closes_canvas=True)
    assert TokenLayout.from_dict(json.loads(json.dumps(theirs.to_dict()))) == theirs
    assert set(theirs.special_ids) >= {6, 7}
    assert theirs.delimiter_names == {}  # the tokenizer spells them
    assert "closes_canvas" not in layout.to_dict()
    without = {name: ids for name, ids in layout.ranges.items() if name != "image"}
    with pytest.raises(ValueError, match="a modality that is not there has neither"):
        replace(theirs, ranges=without)
