"""pytest plugins/vla/tests/test_pusht_geometry.py"""

import numpy as np
import pytest
from unidiff_vla.environments.pusht_geometry import (
    distances_to,
    in_frame_of,
    normals_of,
    outline_at,
    way_around,
)


def test_a_quarter_turn_puts_the_stem_on_the_left():
    outline = outline_at(100.0, 200.0, np.pi / 2)
    assert outline[:, 0].min() == pytest.approx(100 - 120)
    assert outline[:, 1].tolist()[:2] == pytest.approx([140, 260])


def test_a_corner_has_its_own_coordinates_in_the_frame_of_its_t():
    corner = outline_at(100.0, 200.0, 0.7)[3]
    np.testing.assert_allclose(in_frame_of(corner, 100.0, 200.0, 0.7), (15, 30), atol=1e-9)


def test_normals_point_outwards():
    outline = outline_at(256, 256, 0.7)
    middles = (outline + np.roll(outline, -1, axis=0)) / 2
    outside = middles + 16 * normals_of(outline)
    np.testing.assert_allclose(np.linalg.norm(normals_of(outline), axis=1), 1.0)
    np.testing.assert_allclose(distances_to(outline, outside), 16.0, atol=1e-6)


def test_a_way_goes_around_the_t_and_ends_where_it_shall():
    outline = outline_at(256, 200, 0.0)
    start, end = np.array([256.0, 150.0]), np.array([256.0, 400.0])  # above the bar, below the stem
    way = way_around(outline, start, end)
    np.testing.assert_array_equal(way[-1], end)
    assert distances_to(outline, np.array(way)).min() >= 24.0
    assert np.abs(np.array(way)[:, 0] - 256).max() > 60  # past the end of the bar


def test_a_free_way_is_nearly_straight():
    outline = outline_at(400, 350, 0.0)
    start, end = np.array([40.0, 40.0]), np.array([160.0, 40.0])
    way = [start, *way_around(outline, start, end)]
    length = np.linalg.norm(np.diff(way, axis=0), axis=1).sum()
    assert length < 1.1 * 120


def test_a_start_at_the_t_is_left_at_once():
    outline = outline_at(256, 256, 0.0)
    way = way_around(outline, np.array([256.0, 240.0]), np.array([256.0, 60.0]))
    assert distances_to(outline, way[0][None])[0] > 16
