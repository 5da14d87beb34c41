"""Pictures as checkpoints without grids have them: a token behind each row, positions in a line."""

import numpy as np
import pytest

from unidiff.generation.context import Context
from unidiff.tokens.layout import IdRange, TokenLayout
from unidiff.tokens.positions import sequence_positions
from unidiff.tokens.prompts import (
    canvas_modalities,
    empty_canvas,
    prompts_with_canvases,
)
from unidiff.tokens.sequence import SequenceEncoder, run_of

TEXT, IMAGE = 0, 1
ROW_END, OPENING, CLOSING, MASK = 5, 6, 7, 1
FIRST = 20  # id of code 0


@pytest.fixture(scope="module")
def layout() -> TokenLayout:
    return TokenLayout(
        ranges={"text": IdRange(0, FIRST), "image": IdRange(FIRST, 10)},
        mask_token_id=MASK,
        pad_token_id=0,
        end_token_ids=(3,),
        image_grid=(2, 3),
        delimiters={"image": (OPENING, CLOSING)},
        row_end_token_id=ROW_END,
        is_straight=True,
    )


def test_a_picture_has_a_token_behind_each_row(layout: TokenLayout) -> None:
    encoder = SequenceEncoder(None, layout)
    picture = encoder.codes("image", np.arange(6), wanted=True)
    rows = [20, 21, 22, ROW_END, 23, 24, 25, ROW_END]
    assert picture.ids_L.tolist() == [OPENING, *rows, CLOSING]
    assert picture.is_wanted_L.tolist() == [one >= FIRST for one in picture.ids_L]
    assert (picture.modality_L == layout.modality_ids(picture.ids_L)).all()


def test_a_canvas_knows_the_ends_of_its_rows(layout: TokenLayout) -> None:
    canvas = empty_canvas("image", layout)
    inputs = prompts_with_canvases([run_of([2, OPENING], "text")], [canvas], layout)
    row = [MASK, MASK, MASK, ROW_END] * 2
    assert inputs["canvas"][0].tolist() == row
    assert inputs["pinned_mask"][0].tolist() == [one == ROW_END for one in row]
    assert canvas_modalities(canvas, layout) == ["image"]


def test_positions_are_a_line_behind_any_context(layout: TokenLayout) -> None:
    kinds = [TEXT, IMAGE, IMAGE, IMAGE, TEXT, IMAGE, TEXT]
    positions, following = sequence_positions(kinds, layout, start=4)
    assert positions.tolist() == [[4, 5, 6, 7, 8, 9, 10]] * 3
    assert following == 11
    context = Context.of([2, 21, 22, 23], layout)
    assert context.next_positions([IMAGE, TEXT]).tolist() == [[4, 5]] * 3


def test_the_layout_is_kept_in_its_dictionary(layout: TokenLayout) -> None:
    values = layout.to_dict()
    assert TokenLayout.from_dict(values) == layout
    assert values["row_end_token_id"] == ROW_END
    assert values["is_straight"] is True
