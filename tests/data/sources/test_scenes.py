"""Run: pytest -q tests/data/sources/test_scenes.py."""

from itertools import pairwise

import numpy as np
import pytest

from unidiff.data.sources.scenes import (
    KINDS,
    MIN_GAP,
    OPPOSITE,
    SPLITS,
    Scene,
    SceneObject,
    combinations,
    is_unseen_combination,
    relation_between,
    render_scene,
    sample_scene,
    scene_generator,
    scene_relations,
    shape_coverage,
)


def draw(split: str, count: int = 300, seed: int = 0) -> list[Scene]:
    rng = scene_generator(split, seed)
    return [sample_scene(rng, split) for _ in range(count)]


def test_the_two_sides_of_the_split_partition_all_combinations():
    seen, unseen = set(combinations(False)), set(combinations(True))
    assert not seen & unseen
    assert len(seen | unseen) == len(KINDS) * (len(KINDS) - 1) * 2
    assert 0.12 < len(unseen) / len(seen | unseen) < 0.18


def test_the_split_is_the_same_in_every_process():
    # recorded once; a change of hash or words would move scenes between training and test
    assert (len(combinations(False)), len(combinations(True))) == (518, 94)


@pytest.mark.parametrize("relation", sorted(OPPOSITE))
def test_a_combination_is_unseen_whichever_way_it_is_read(relation):
    for first, second in pairwise(KINDS):
        names = " ".join(first), " ".join(second)
        assert is_unseen_combination(names[0], relation, names[1]) == is_unseen_combination(
            names[1], OPPOSITE[relation], names[0]
        )


@pytest.mark.parametrize("split", ["train", "seen"])
def test_no_pair_of_a_training_scene_is_an_unseen_combination(split):
    for scene in draw(split):
        assert not any(is_unseen_combination(*words) for words in scene_relations(scene))
        assert not scene.is_unseen


def test_the_anchor_of_an_unseen_scene_is_an_unseen_combination():
    for scene in draw("unseen"):
        first, second = scene.anchor
        relation = relation_between(first, second)
        assert is_unseen_combination(first.name, relation, second.name)


@pytest.mark.parametrize("split", SPLITS)
def test_objects_differ_in_name_stay_inside_and_never_touch(split):
    for scene in draw(split):
        names = [item.name for item in scene.objects]
        assert len(set(names)) == len(names)
        for i, item in enumerate(scene.objects):
            assert item.size / 2 <= min(item.row, item.column)
            assert max(item.row, item.column) <= 32 - item.size / 2
            for other in scene.objects[:i]:
                distance = max(abs(item.row - other.row), abs(item.column - other.column))
                assert distance >= (item.size + other.size) / 2 + MIN_GAP


def test_every_scene_of_two_or_more_objects_has_an_aligned_anchor():
    for scene in draw("train"):
        assert (scene.anchor is None) == (len(scene.objects) == 1)
        assert scene.anchor is None or relation_between(*scene.anchor) in OPPOSITE


def test_the_same_seed_repeats_a_scene_and_splits_have_their_own_streams():
    assert draw("train", 5) == draw("train", 5)
    assert not set(draw("train", 200)) & set(draw("seen", 200))
    assert not set(draw("train", 200)) & set(draw("train", 200, seed=1))


def test_relations_follow_from_the_centres():
    here = SceneObject("red", "circle", 16, 16, 8)
    places = {"left of": (16, 26), "right of": (17, 6), "above": (26, 16), "below": (6, 14)}
    for relation, (row, column) in places.items():
        assert relation_between(here, SceneObject("blue", "square", row, column, 8)) == relation
    assert relation_between(here, SceneObject("blue", "square", 26, 26, 8)) is None


def test_a_rendered_square_has_known_pixels():
    square = SceneObject("red", "square", 16, 16, 8)
    image = render_scene(Scene((square,), background=40))
    expected = np.full((32, 32, 3), 40, dtype=np.uint8)
    expected[12:20, 12:20] = (220, 30, 30)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("shape", "area"), [("circle", np.pi * 81 / 4), ("square", 81.0), ("triangle", 40.5)]
)
def test_coverage_sums_to_the_area_of_the_shape(shape, area):
    coverage, _, _ = shape_coverage(shape, 15.7, 16.2, 9.0)
    assert coverage.sum() == pytest.approx(area, rel=0.04)


def test_impossible_requests_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="split must be one of"):
        sample_scene(rng, "test")
    with pytest.raises(ValueError, match="2 to 4 objects"):
        sample_scene(rng, "unseen", num_objects=1)
    with pytest.raises(ValueError, match="shape must be one of"):
        shape_coverage("cross", 16, 16, 8)
    with pytest.raises(ValueError, match="relation must be one of"):
        is_unseen_combination("red circle", "near", "blue square")
