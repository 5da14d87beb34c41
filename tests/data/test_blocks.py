"""Blocks: wanted runs cut, merged, filled beyond the end or laid on a grid."""

import itertools
from typing import Any

import numpy as np
import pytest

from unidiff.data.blocks import (
    IGNORED,
    NO_BLOCK,
    BlockOptions,
    TrainingRow,
    blocks_row,
    log_uniform_length,
    one_block_row,
)
from unidiff.tokens.layout import contiguous_layout
from unidiff.tokens.sequence import TokenSequence, join, run_of

END = 3
LAYOUT = contiguous_layout(
    {"text": 20, "image": 8, "action": 4},
    mask_token_id=1,
    pad_token_id=0,
    end_token_ids=(END,),
    image_grid=(2, 2),
    action_grid=(2, 1),
)
PLAIN = BlockOptions(max_block_length=3, prob_end_fill=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def text(length: int, wanted: bool = False, end: bool = False) -> TokenSequence:
    return run_of([*range(4, 4 + length - end), *[END] * end], "text", wanted)


def image(wanted: bool = True) -> TokenSequence:
    return join([run_of([18], "text"), run_of([20, 21, 22, 23], "image", wanted), text(1)])


def row_of(parts: list[TokenSequence], options: BlockOptions = PLAIN, seed: int = 0) -> TrainingRow:
    return blocks_row(join(parts), LAYOUT, options, rng(seed))


def check(row: TrainingRow) -> None:
    """What every row promises."""
    assert (np.diff(row.token_index) > 0).all()
    assert row.position_ids.shape == (3, len(row))
    assert ((row.labels == IGNORED) | (row.labels == row.input_ids)).all()
    assert (row.block_ids[row.labels != IGNORED] != NO_BLOCK).all()
    for block in set(row.block_ids.tolist()) - {NO_BLOCK}:
        assert (np.diff(np.flatnonzero(row.block_ids == block)) == 1).all()


def test_lengths_are_log_uniform() -> None:
    generator = rng()
    lengths = np.array([log_uniform_length(generator, 31) for _ in range(4000)])
    assert lengths.min() == 1
    assert lengths.max() == 31
    # Each doubling 1, 2-3, 4-7, 8-15, 16-31 holds a fifth.
    shares = np.histogram(lengths, bins=[1, 2, 4, 8, 16, 32])[0] / 4000
    assert shares == pytest.approx([0.2] * 5, abs=0.03)
    assert log_uniform_length(generator, 1) == 1


@pytest.mark.parametrize("seed", range(5))
def test_wanted_text_is_cut_into_blocks_of_bounded_length(seed: int) -> None:
    row = row_of([text(2), text(9, wanted=True, end=True)], seed=seed)
    check(row)
    assert row.labels.tolist() == [IGNORED] * 2 + row.input_ids[2:].tolist()
    assert row.block_ids[:2].tolist() == [NO_BLOCK] * 2
    sizes = [len(list(g)) for _, g in itertools.groupby(row.block_ids[2:].tolist())]
    assert sum(sizes) == 9
    assert max(sizes) <= 3
    assert row.context_mask.all()
    assert row.position_ids[1].tolist() == list(range(11))


def test_the_same_generator_gives_the_same_row() -> None:
    parts = [text(2), text(9, wanted=True, end=True)]
    options = BlockOptions(max_block_length=4)
    first, again = (row_of(parts, options, seed=3) for _ in range(2))
    assert first.block_ids.tolist() == again.block_ids.tolist()
    many = {tuple(row_of(parts, options, seed=s).block_ids.tolist()) for s in range(20)}
    assert len(many) > 5


def test_a_wanted_image_is_one_block_and_nothing_behind_it_is_kept() -> None:
    row = row_of([text(2), image(), text(1)])
    check(row)
    assert row.input_ids.tolist() == [4, 5, 18, 20, 21, 22, 23]
    assert row.block_ids.tolist() == [NO_BLOCK] * 3 + [0] * 4
    assert row.context_mask.tolist() == [True] * 3 + [False] * 4
    assert row.position_ids[:, 3:].tolist() == [[3] * 4, [3, 3, 4, 4], [3, 4, 3, 4]]


def test_an_image_with_text_behind_it_stays_in_the_context() -> None:
    row = row_of([text(1), image(), text(2, wanted=True)])
    check(row)
    assert row.context_mask.all()
    assert len(row) == 9
    assert len(set(row.block_ids.tolist()) - {NO_BLOCK}) >= 2


def test_two_wanted_images_need_the_first_but_not_the_second_as_context() -> None:
    row = row_of([text(1), image(), image()])
    check(row)
    assert row.context_mask.tolist() == [True] * 8 + [False] * 4
    assert row.block_ids.tolist() == [-1, -1, 0, 0, 0, 0, -1, -1, 1, 1, 1, 1]


def test_a_row_read_left_to_right_has_no_canvas() -> None:
    options = BlockOptions(left_to_right=True)
    row = row_of([text(2), image(), text(1)], options)
    assert row.input_ids.tolist() == [4, 5, 18, 20, 21, 22, 23]
    assert row.labels.tolist() == [IGNORED] * 3 + [20, 21, 22, 23]
    assert row.context_mask.all()
    assert (row.block_ids == NO_BLOCK).all()
    assert row.position_ids[:, 3:].tolist() == [[3] * 4, [3, 3, 4, 4], [3, 4, 3, 4]]
    with pytest.raises(ValueError, match="no blocks"):
        BlockOptions(left_to_right=True, grid=True)


def test_end_fill_grows_the_last_block_of_the_canvas_only() -> None:
    options = BlockOptions(max_block_length=8, prob_end_fill=1.0)
    row = row_of([text(2), text(4, wanted=True, end=True), text(2)], options)
    check(row)
    fill = np.arange(len(row)) >= 6
    assert 1 <= fill.sum() <= 4
    assert (row.input_ids[fill] == END).all()
    assert (row.labels[fill] == END).all()
    assert (row.block_ids[fill] == row.block_ids[5]).all()
    assert not row.context_mask[fill].any()
    assert row.token_index.tolist() == list(range(len(row)))
    assert row.position_ids[0].tolist() == list(range(len(row)))


def test_end_fill_happens_as_often_as_asked_and_only_behind_an_end() -> None:
    options = BlockOptions(max_block_length=8, prob_end_fill=0.7)
    ended = [len(row_of([text(4, wanted=True, end=True)], options, s)) > 4 for s in range(400)]
    assert np.mean(ended) == pytest.approx(0.7, abs=0.08)
    assert {len(row_of([text(4, wanted=True)], options, s)) for s in range(50)} == {4}


def test_merged_runs_are_one_block_with_what_stands_between_pinned() -> None:
    options = BlockOptions(max_block_length=8, prob_end_fill=0.0, prob_merge=1.0)
    row = row_of([text(1), image(), text(2), text(3, wanted=True)], options)
    check(row)
    assert row.block_ids.tolist() == [-1, -1] + [0] * 10
    labelled = (row.labels != IGNORED).tolist()
    assert labelled == [False] * 2 + [True] * 4 + [False] * 3 + [True] * 3


def test_grid_blocks_are_aligned_and_pin_the_prompt() -> None:
    options = BlockOptions(max_block_length=4, grid=True)
    row = row_of([text(6), text(4, wanted=True), text(3)], options)
    check(row)
    assert row.block_ids.tolist() == [NO_BLOCK] * 4 + [1] * 4 + [2] * 4 + [NO_BLOCK]
    assert (row.labels != IGNORED).tolist() == [False] * 6 + [True] * 4 + [False] * 3
    assert row.context_mask.all()


def test_one_block_holds_everything_behind_the_prompt() -> None:
    sequence = join([text(2), text(2), text(2, wanted=True), text(1)])
    row = one_block_row(sequence, LAYOUT, first=2)
    check(row)
    assert row.block_ids.tolist() == [-1, -1, 0, 0, 0, 0, 0]
    assert (row.labels != IGNORED).tolist() == [False] * 4 + [True] * 2 + [False]
    assert row.context_mask.tolist() == [True] * 2 + [False] * 5


@pytest.mark.parametrize("first", [3, 5])
def test_one_block_needs_all_wanted_tokens_inside(first: int) -> None:
    sequence = join([text(2), text(2, wanted=True), text(2)])
    with pytest.raises(ValueError, match="at or behind index"):
        one_block_row(sequence, LAYOUT, first=first)


def test_rows_without_a_wanted_token_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one wanted token"):
        row_of([text(4)])


@pytest.mark.parametrize("fields", [{"max_block_length": 0}, {"max_block_length": -1}])
def test_impossible_options_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="1 <= min_block_length <= max_block_length"):
        BlockOptions(**fields)
