"""Printed attention masks for six tokens: rows are queries, columns keys, x = attends."""

import pytest
import torch
from torch import Tensor

from unidiff.model.masks import Stream, concatenated_mask, context_mask, decode_mask, full_mask
from unidiff.model.placement import Placement


def printed(mask_QS: Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask_QS.tolist()]


def context_of(sample: list[int], index: list[int] | None = None) -> Stream:
    sample_BL = torch.tensor([sample])
    index_BL = torch.arange(len(sample))[None] if index is None else torch.tensor([index])
    return Stream(sample_BL, index_BL, torch.full_like(index_BL, -1), index_BL)


def canvas_of(sample: list[int], index: list[int], block: list[int], first: list[int]) -> Stream:
    return Stream(*(torch.tensor([values]) for values in (sample, index, block, first)))


def test_causal_context_attends_to_itself_and_before() -> None:
    assert printed(context_mask(context_of([0] * 6), None)[0]) == [
        "x.....",
        "xx....",
        "xxx...",
        "xxxx..",
        "xxxxx.",
        "xxxxxx",
    ]


def test_block_causal_context_also_attends_to_its_block() -> None:
    assert printed(context_mask(context_of([0] * 6), 2)[0]) == [
        "xx....",
        "xx....",
        "xxxx..",
        "xxxx..",
        "xxxxxx",
        "xxxxxx",
    ]


def test_grid_counts_from_the_first_token_that_was_not_dropped() -> None:
    # Tokens 2 and 3 are not in the context: 4 and 5 still share a block of the grid.
    assert printed(context_mask(context_of([0] * 4, [0, 1, 4, 5]), 4)[0]) == [
        "xx..",
        "xx..",
        "xxxx",
        "xxxx",
    ]


def test_full_attention_reaches_every_real_token() -> None:
    mask = torch.tensor([[0, 1, 1, 1, 1, 0]])
    assert printed(full_mask(mask)[0, 0]) == [
        "x.....",
        ".xxxx.",
        ".xxxx.",
        ".xxxx.",
        ".xxxx.",
        ".....x",
    ]


def test_packed_samples_and_padding_do_not_see_each_other() -> None:
    context = context_of([0, 0, 1, 1, 1, -1], [0, 1, 0, 1, 2, 0])
    assert printed(context_mask(context, None)[0]) == [
        "x.....",
        "xx....",
        "..x...",
        "..xx..",
        "..xxx.",
        "......",
    ]


SIX_TOKENS = ([0] * 4, [2, 3, 4, 5], [0, 0, 1, 1], [2, 2, 4, 4])  # two tokens of prompt


def test_canvas_sees_context_before_its_block_and_its_whole_block() -> None:
    mask = concatenated_mask(context_of([0] * 6), canvas_of(*SIX_TOKENS), None)[0, 0]
    assert printed(mask) == [
        "x.........",
        "xx........",
        "xxx.......",
        "xxxx......",
        "xxxxx.....",
        "xxxxxx....",
        "xx....xx..",
        "xx....xx..",
        "xxxx....xx",
        "xxxx....xx",
    ]


def test_canvas_of_a_grid_sees_the_same_context() -> None:
    mask = concatenated_mask(context_of([0] * 6), canvas_of(*SIX_TOKENS), 2)[0, 0]
    assert printed(mask) == [
        "xx........",
        "xx........",
        "xxxx......",
        "xxxx......",
        "xxxxxx....",
        "xxxxxx....",
        "xx....xx..",
        "xx....xx..",
        "xxxx....xx",
        "xxxx....xx",
    ]


def test_canvas_sees_the_context_before_its_block_after_dropped_tokens() -> None:
    # Tokens 2 and 3 were dropped; the block of 4 and 5 sees 0 and 1, not the clean 4.
    context = context_of([0] * 3, [0, 1, 4])
    canvas = canvas_of([0, 0], [4, 5], [7, 7], [4, 4])
    assert printed(concatenated_mask(context, canvas, None)[0, 0][3:]) == ["xx.xx", "xx.xx"]


def test_blocks_of_packed_samples_with_equal_numbers_stay_apart() -> None:
    context = context_of([0, 1, -1], [0, 0, 0])
    canvas = canvas_of([0, 1, -1], [1, 1, 0], [0, 0, -1], [1, 1, 0])
    assert printed(concatenated_mask(context, canvas, None)[0, 0]) == [
        "x.....",
        ".x....",
        "..x...",
        "x..x..",
        ".x..x.",
        ".....x",
    ]


@pytest.mark.parametrize("grid", [None, 2])
def test_decoding_commits_causally_and_the_canvas_sees_everything(grid: int | None) -> None:
    numbers = (torch.tensor([2, 0]), torch.tensor([2, 1]), torch.tensor([2, 1]))
    mask = decode_mask(Placement.of(*numbers, (2, 2)), grid)
    assert mask is not None
    first_row = "xxx..." if grid is None else "xxxx.."
    assert printed(mask[0, 0]) == [first_row, "xxxx..", "xxxxxx", "xxxxxx"]
    # The short row: its canvas follows its one committed token, padding sees the first slot.
    assert printed(mask[1, 0]) == ["x.....", "x.....", "xx....", "x....."]


@pytest.mark.parametrize("grid", [None, 3])
@pytest.mark.parametrize("numbers", [[[5, 5], [2, 2], [3, 3]], [[4, 7], [2, 0], [1, 3]]])
def test_additive_masks_leave_out_what_every_token_sees(
    numbers: list[list[int]], grid: int | None
) -> None:
    placement = Placement.of(*map(torch.tensor, numbers), (2, 3))
    mask = decode_mask(placement, grid)
    added = decode_mask(placement, grid, torch.float32)
    assert mask is not None
    assert added is not None
    first = mask.shape[-1] - added.shape[-1]
    assert mask[..., :first].all()
    assert torch.equal(added == 0, mask[..., first:])
    assert (added[~mask[..., first:]] == torch.finfo(torch.float32).min).all()


def test_no_mask_is_needed_where_every_token_sees_everything() -> None:
    held, nothing, canvas = torch.tensor([7]), torch.tensor([0]), torch.tensor([4])
    assert decode_mask(Placement.of(held, nothing, canvas, (0, 4)), None) is None
    assert decode_mask(Placement.of(held, torch.tensor([1]), nothing, (1, 0)), None) is None
    assert decode_mask(Placement.of(held, torch.tensor([2]), nothing, (2, 0)), None) is not None


def test_no_query_is_left_without_a_key() -> None:
    context = context_of([-1] * 3)
    canvas = canvas_of([-1] * 2, [0, 0], [-1, -1], [0, 0])
    assert concatenated_mask(context, canvas, None).any(-1).all()
    assert full_mask(torch.zeros(1, 4)).any(-1).all()
