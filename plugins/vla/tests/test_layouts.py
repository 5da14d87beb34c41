"""pytest plugins/vla/tests/test_layouts.py"""

import numpy as np
import pytest
from unidiff_vla.environments import LayoutSampler, split_of
from unidiff_vla.environments.layouts import cell_of

LOW, HIGH = np.array([-0.1, 0.5, 0.02]), np.array([0.1, 0.9, 0.02])  # the last side is a point


def layouts(split, num_seeds=300):
    return np.array([LayoutSampler(split, seed, LOW, HIGH).draw() for seed in range(num_seeds)])


def test_no_test_layout_lies_in_a_cell_of_a_training_layout():
    cells = {
        split: {cell_of(one, LOW, HIGH) for one in layouts(split)} for split in ("train", "test")
    }
    assert cells["train"]
    assert cells["test"]
    assert not cells["train"] & cells["test"]


def test_split_and_seed_alone_decide_a_layout():
    np.testing.assert_array_equal(layouts("test", 5), layouts("test", 5))
    assert len(np.unique(layouts("train")[:, 0])) == 300


def test_a_quarter_of_the_box_is_for_testing_and_none_of_it_at_a_single_place():
    points = np.random.default_rng(0).uniform(LOW, HIGH, (4000, 3))
    is_test = np.array([split_of(point, LOW, HIGH) == "test" for point in points])
    assert abs(is_test.mean() - 0.25) < 0.03
    along = points[is_test, 0]
    assert along.min() < -0.09
    assert along.max() > 0.09


def test_layouts_stay_in_the_box_and_corners_have_a_cell():
    drawn = layouts("train")
    assert (drawn >= LOW).all()
    assert (drawn <= HIGH).all()
    assert cell_of(HIGH, LOW, HIGH) == (15, 15, 0)
    assert cell_of(LOW, LOW, HIGH) == (0, 0, 0)


def test_what_was_drawn_last_is_kept_apart_from_what_was_handed_out():
    sampler = LayoutSampler("train", 3, LOW, HIGH)
    drawn = sampler.draw()
    drawn[:] = 0
    assert sampler.last[1] >= 0.5


def test_an_unknown_split_and_a_box_without_length_are_refused():
    with pytest.raises(ValueError, match="split must be one of"):
        LayoutSampler("valid", 0, LOW, HIGH)
    with pytest.raises(ValueError, match="box of layouts with some length"):
        LayoutSampler("test", 0, LOW, LOW)
