"""Contexts and canvases of single rows: positions, prefixes, what is pending, where a row ends."""

import numpy as np
import pytest
import torch

from unidiff.generation.canvases import Canvas, Canvases
from unidiff.generation.context import Context
from unidiff.tokens.layout import contiguous_layout
from unidiff.tokens.positions import sequence_positions

LAYOUT = contiguous_layout(
    {"text": 10, "image": 8},
    mask_token_id=1,
    pad_token_id=0,
    end_token_ids=(3,),
    image_grid=(2, 2),
)
TEXT, IMAGE = 0, 1


def test_positions_continue_as_if_the_sequence_were_one() -> None:
    ids = [5, 6, 10, 11, 12, 13, 7]
    context = Context.of(ids, LAYOUT)
    kinds = [IMAGE] * 4 + [TEXT] * 2
    whole, _ = sequence_positions(np.array(context.modality + kinds), LAYOUT)
    assert context.modality == [0, 0, 1, 1, 1, 1, 0]
    assert np.array_equal(context.positions, whole[:, :7])
    assert np.array_equal(context.next_positions(kinds), whole[:, 7:])


def test_half_an_image_is_continued_in_its_grid() -> None:
    context = Context.of([5, 10, 11], LAYOUT)
    whole, _ = sequence_positions(np.array([0, 1, 1, 1, 1]), LAYOUT)
    assert np.array_equal(context.next_positions([IMAGE, IMAGE]), whole[:, 3:])


def test_given_positions_are_kept_and_continued_behind_the_largest() -> None:
    given = np.array([[7, 9], [7, 9], [7, 9]])
    context = Context.of([5, 6], LAYOUT, given)
    following = context.next_positions([TEXT, TEXT])
    assert following[0].tolist() == [10, 11]
    context.extend([4], [TEXT], following[:, :1])
    assert context.next_positions([TEXT])[0].tolist() == [11]


def test_pending_tokens_are_taken_once_and_in_order() -> None:
    context = Context.of([4, 5, 6, 7], LAYOUT)
    assert context.num_pending == 4
    assert context.take_pending(3)[0] == [4, 5, 6]
    ids, positions = context.take_pending()
    assert ids == [7]
    assert positions[0].tolist() == [3]
    assert context.take_pending()[0] == []


def test_split_moves_the_end_of_a_prompt_into_a_canvas() -> None:
    context = Context.of([4, 5, 6, 7], LAYOUT)
    rest = context.split(3)
    assert (context.ids, rest.ids) == ([4, 5, 6], [7])
    assert rest.positions[0].tolist() == [3]
    assert context.num_prompt == 3


def test_common_prefix_compares_ids_and_positions() -> None:
    context = Context.of([4, 5, 6], LAYOUT)
    same = context.positions
    assert context.common_prefix([4, 5, 6, 7], np.arange(4).repeat(3).reshape(4, 3).T) == 3
    assert context.common_prefix([4, 9, 6], same) == 1
    assert context.common_prefix([4, 5], same[:, :2]) == 2
    assert context.common_prefix([], same[:, :0]) == 0
    moved = same.copy()
    moved[2, 1] += 1
    assert context.common_prefix([4, 5, 6], moved) == 1


def text_canvas(ids: list[int], pinned: list[bool], first_index: int = 0) -> Canvas:
    length = len(ids)
    return Canvas(
        ids=np.array(ids),
        pinned=np.array(pinned),
        drafted=np.zeros(length, dtype=bool),
        modality=np.zeros(length, dtype=np.int64),
        positions=np.zeros((3, length), dtype=np.int64),
        first_index=first_index,
        budget=None,
        window_stop=length,
    )


@pytest.fixture
def canvases() -> Canvases:
    """Three rows: four masks; a pinned end token and two masks; no canvas."""
    state = Canvases.empty(3, 4, torch.device("cpu"))
    state.open(0, text_canvas([9, 9, 9, 9], [False] * 4, first_index=5), mask_token_id=1)
    state.open(1, text_canvas([3, 0, 0], [True, False, False]), mask_token_id=1)
    return state


def test_opening_masks_what_is_not_pinned(canvases: Canvases) -> None:
    assert canvases.ids_BK.tolist() == [[1, 1, 1, 1], [3, 1, 1, 0], [0, 0, 0, 0]]
    assert canvases.masked_BK.sum(1).tolist() == [4, 2, 0]
    assert canvases.budget_B.tolist() == [4, 2, 1]
    assert canvases.row_index[0].tolist() == [5, 6, 7, 8]


def test_end_counts_when_generated_and_nothing_before_it_is_masked(canvases: Canvases) -> None:
    ends = torch.tensor([[3, -1], [3, 4], [3, 4]])
    assert canvases.first_end(ends).tolist() == [-1, -1, -1]  # a pinned 3 does not count
    canvases.ids_BK[0, 2], canvases.masked_BK[0, 2] = 3, False
    canvases.ids_BK[1, 1], canvases.masked_BK[1, 1] = 4, False
    assert canvases.first_end(ends).tolist() == [-1, 1, -1]
    canvases.ids_BK[0, :2], canvases.masked_BK[0, :2] = 7, False
    assert canvases.first_end(ends).tolist() == [2, 1, -1]
    canvases.ids_BK[0, 1] = 3
    assert canvases.first_end(ends).tolist() == [1, 1, -1]
    assert canvases.first_end(torch.zeros(3, 0, dtype=torch.int64)).tolist() == [-1, -1, -1]


def test_window_limits_what_is_open_and_counts_afresh(canvases: Canvases) -> None:
    canvases.step_B[0] = 3
    canvases.open_window(0, 2, 7)
    assert canvases.is_open[0].tolist() == [True, True, False, False]
    assert (int(canvases.step_B[0]), int(canvases.budget_B[0]), int(canvases.total_B[0])) == (
        0,
        7,
        2,
    )


def test_reopened_row_remembers_nothing(canvases: Canvases) -> None:
    canvases.log_prob_BK[0] = -1.0
    canvases.open(0, text_canvas([9, 9], [False, True]), mask_token_id=1)
    assert canvases.masked_BK[0].tolist() == [True, False, False, False]
    assert canvases.pinned_BK[0].tolist() == [False, True, False, False]
    assert canvases.log_prob_BK[0].tolist() == [0.0] * 4
    kept = canvases.select([1, 0])
    assert kept.length_B.tolist() == [3, 2]
