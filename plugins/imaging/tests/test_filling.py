"""Holes, what is known around them, and what becomes of it."""

import numpy as np
import pytest
from PIL import Image
from unidiff_imaging.filling import Inpainting, Outpainting, middle
from unidiff_imaging.filling_data import random_box
from unidiff_imaging.pixels import box_mask, cells_of, hole_at, hole_in, on_canvas, without_hole

from unidiff.evaluation.pictures import decode_pictures

BOX = (8, 8, 16, 16)


@pytest.fixture
def noise():
    return np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def filled(task, processor, example, codes):
    """What the task makes of a canvas whose image codes are all of these."""
    request = task.build(processor, example)
    ids = request["canvas"][0].numpy().copy()
    image = processor.layout.range_of("image")
    place = (request["canvas_modality_ids"][0] == 1).numpy()
    assert place.sum() == 64
    ids[place] = image.start + codes
    return np.asarray(task.parse(processor, ids, request))


def test_a_box_is_true_inside_and_false_outside():
    mask = box_mask((4, 3), (1, 2, 2, 1))
    assert mask.tolist() == [[False] * 4, [False, False, True, False], [False, False, True, False]]


def test_only_the_cells_with_an_unknown_pixel_are_wanted(processor, noise):
    request = Inpainting().build(processor, {"image": noise, "hole": (8, 8, 9, 4)})
    wanted = ~request["pinned_mask"][0]
    cells = np.zeros((8, 8), dtype=bool)
    cells[2:5, 2] = True
    image = request["canvas_modality_ids"][0] == 1
    assert np.array_equal(wanted[image].numpy(), cells.reshape(-1))


def test_pixels_in_the_hole_do_not_reach_the_codes_beside_it(processor, noise):
    other = noise.copy()
    other[8:24, 8:24] = 255 - other[8:24, 8:24]
    first, second = (
        Inpainting().build(processor, {"image": one, "hole": BOX})["canvas"]
        for one in (noise, other)
    )
    assert np.array_equal(first, second)
    whole = [processor.image_codes(one).reshape(8, 8) for one in (noise, other)]
    outside = ~cells_of(box_mask((32, 32), BOX), (8, 8))
    assert not np.array_equal(whole[0][outside], whole[1][outside])  # they would, otherwise


def test_known_pixels_are_exact_where_they_are_put_back(processor, noise):
    result = filled(Inpainting(), processor, {"image": noise, "hole": BOX}, np.arange(64))
    hole = box_mask((32, 32), BOX)
    assert np.array_equal(result[~hole], noise[~hole])
    assert not np.array_equal(result[hole], noise[hole])


def test_known_pixels_are_the_tokenizers_round_trip_where_they_are_not(processor, noise):
    codes = processor.image_codes(noise)
    task = Inpainting(keep_pixels=False)
    result = filled(task, processor, {"image": noise, "hole": BOX}, codes)
    assert np.array_equal(result, decode_pictures(processor, codes[None])[0])


def test_outpainting_looks_at_the_window_alone(processor, noise):
    other = np.where(box_mask((32, 32), BOX)[..., None], noise, 7).astype(np.uint8)
    requests = [
        Outpainting().build(processor, {"image": one, "window": BOX}) for one in (noise, other)
    ]
    assert np.array_equal(requests[0]["canvas"], requests[1]["canvas"])
    assert int((~requests[0]["pinned_mask"]).sum()) == 64 - 16
    result = filled(Outpainting(), processor, {"image": noise, "window": BOX}, np.arange(64))
    assert np.array_equal(result[8:24, 8:24], noise[8:24, 8:24])


def test_a_text_stands_known_behind_the_picture(processor, noise):
    with_text = Inpainting().build(processor, {"image": noise, "hole": BOX, "text": "a bag"})
    without = Inpainting().build(processor, {"image": noise, "hole": BOX})
    assert int((~with_text["pinned_mask"]).sum()) == int((~without["pinned_mask"]).sum()) == 16
    assert with_text["canvas"].shape[1] > without["canvas"].shape[1]


def test_training_without_a_hole_draws_one(processor, noise):
    rows = [
        Inpainting().training_row(processor, {"image": noise}, np.random.default_rng(seed))
        for seed in (0, 1)
    ]
    counts = [int((row.labels >= 0).sum()) for row in rows]
    assert all(0 < count <= 49 for count in counts)
    assert not np.array_equal(rows[0].labels, rows[1].labels)


def test_training_asks_for_the_true_codes_of_the_hole(processor, noise):
    row = Inpainting().training_row(
        processor, {"image": noise, "hole": BOX}, np.random.default_rng(0)
    )
    cells = cells_of(box_mask((32, 32), BOX), (8, 8)).reshape(-1)
    true = processor.layout.encode("image", processor.image_codes(noise))
    assert np.array_equal(row.labels[row.labels >= 0], true[cells])


@pytest.mark.parametrize(
    ("hole", "words"),
    [
        (np.zeros((32, 32), dtype=bool), "no pixel"),
        (np.ones((5, 5), dtype=bool), "shape of its picture"),
        (np.ones((32, 32)), "bool array"),
        ((0, 0, 33, 1), "inside the picture"),
    ],
)
def test_a_hole_that_does_not_fit_is_refused(processor, noise, hole, words):
    with pytest.raises(ValueError, match=words):
        Inpainting().build(processor, {"image": noise, "hole": hole})


def test_unknown_pixels_repeat_the_nearest_known_one(noise):
    hole = box_mask((32, 32), (0, 0, 32, 20))
    seen = without_hole(noise, hole)
    assert np.array_equal(seen[:, :20], np.repeat(noise[:, 20:21], 20, axis=1))
    assert np.array_equal(seen[:, 20:], noise[:, 20:])
    assert (without_hole(noise, np.ones((32, 32), dtype=bool)) == 128).all()


def test_a_hole_is_measured_where_its_picture_is_padded_or_its_cells_are():
    picture = Image.new("RGB", (20, 16))
    placed = hole_at(hole_in(picture, (0, 0, 16, 1)), picture, (32, 32))
    assert np.array_equal(np.argwhere(placed), [(row, 6) for row in range(8, 24)])
    cells = np.zeros((8, 8), dtype=bool)
    cells[1, 2] = True
    by_cell = hole_at(cells, Image.new("RGB", (32, 32)), (32, 32))
    assert np.array_equal(by_cell, box_mask((32, 32), (4, 8, 4, 4)))


def test_a_picture_stands_in_the_middle_of_its_window():
    canvas, box = on_canvas(Image.new("RGB", (40, 20), "white"), (32, 32), (8, 4, 16, 16))
    assert box == (12, 4, 8, 16)
    assert np.array_equal((canvas == 255).all(2), box_mask((32, 32), box))


def test_boxes_lie_inside_the_picture():
    for seed in range(50):
        box = random_box((24, 40), np.random.default_rng(seed))
        assert box_mask((40, 24), box).any()
    assert middle((32, 16)) == (4, 8, 8, 16)
