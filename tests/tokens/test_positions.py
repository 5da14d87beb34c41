"""Positions: text is a line, an image is a grid at one time, an action chunk runs in time."""

import numpy as np
import pytest

from unidiff.tokens.layout import contiguous_layout
from unidiff.tokens.positions import sequence_positions

TEXT, IMAGE, ACTION, STATE = range(4)


@pytest.fixture(scope="module")
def layout():
    return contiguous_layout(
        {"text": 20, "image": 10, "action": 5, "state": 5},
        mask_token_id=1,
        pad_token_id=0,
        end_token_ids=(3,),
        image_grid=(2, 3),
        action_grid=(4, 2),
    )


def test_text_and_state_move_all_sections_together(layout):
    positions, following = sequence_positions([TEXT, TEXT, STATE, STATE, TEXT], layout, start=7)
    assert positions.tolist() == [[7, 8, 9, 10, 11]] * 3
    assert following == 12


def test_an_image_is_a_grid_at_one_time_and_text_goes_on_behind_its_longer_side(layout):
    positions, following = sequence_positions([TEXT] + [IMAGE] * 6 + [TEXT], layout)
    assert positions.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4],
        [0, 1, 1, 1, 2, 2, 2, 4],
        [0, 1, 2, 3, 1, 2, 3, 4],
    ]
    assert following == 5


def test_an_action_chunk_runs_in_time_with_its_dimensions_beside_each_other(layout):
    positions, following = sequence_positions([ACTION] * 8, layout, start=3)
    assert positions.tolist() == [
        [3, 3, 4, 4, 5, 5, 6, 6],
        [3] * 8,
        [3, 4] * 4,
    ]
    assert following == 7


def test_grids_behind_each_other_get_corners_of_their_own(layout):
    positions, following = sequence_positions([IMAGE] * 12, layout)
    assert (positions[:, 6:] == positions[:, :6] + 3).all()
    assert following == 6


def test_a_grid_cut_short_has_the_positions_of_the_whole_one(layout):
    whole, _ = sequence_positions([TEXT] + [IMAGE] * 6, layout)
    cut, following = sequence_positions([TEXT] + [IMAGE] * 4, layout)
    assert (cut == whole[:, :5]).all()
    assert following == 4


def test_a_sequence_continues_where_its_beginning_ended(layout):
    modality = [TEXT, *[IMAGE] * 6, TEXT, STATE, *[ACTION] * 8, TEXT]
    whole, end = sequence_positions(modality, layout)
    for cut in (0, 1, 7, 9, 17, 18):
        first, middle = sequence_positions(modality[:cut], layout)
        second, stop = sequence_positions(modality[cut:], layout, start=middle)
        assert (np.concatenate([first, second], axis=1) == whole).all()
        assert stop == end


def test_no_two_tokens_share_a_position(layout):
    modality = [TEXT, *[IMAGE] * 12, TEXT, *[ACTION] * 8, STATE]
    positions, following = sequence_positions(modality, layout)
    assert len({tuple(column) for column in positions.T}) == len(modality)
    assert following == positions.max() + 1


def test_an_empty_sequence_has_no_positions(layout):
    positions, following = sequence_positions([], layout, start=5)
    assert positions.shape == (3, 0)
    assert following == 5


@pytest.mark.parametrize("bad", [-1, 4])
def test_an_index_that_is_no_modality_is_refused(layout, bad):
    with pytest.raises(ValueError, match="modality indices"):
        sequence_positions([0, bad], layout)
