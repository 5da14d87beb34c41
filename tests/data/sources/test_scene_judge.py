"""Run: pytest -q tests/data/sources/test_scene_judge.py."""

from dataclasses import replace

import numpy as np
import pytest

from unidiff.data.sources.scene_judge import UNCLEAR, read_scene, scene_matches
from unidiff.data.sources.scenes import (
    COLOURS,
    SHAPES,
    Scene,
    SceneObject,
    render_scene,
    sample_scene,
    scene_generator,
)


def degrade(image: np.ndarray, sigma: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of `sigma` px, then noise of standard deviation `noise` levels."""
    offsets = np.arange(-4, 5)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(image.astype(float), ((4, 4), (4, 4), (0, 0)), mode="edge")
    down = sum(k * padded[i : i + 32] for i, k in enumerate(kernel))
    blurred = sum(k * down[:, i : i + 32] for i, k in enumerate(kernel))
    return np.clip(np.rint(blurred + rng.normal(0, noise, image.shape)), 0, 255).astype(np.uint8)


def names_read(image: np.ndarray) -> list[str]:
    return sorted(f"{item.colour} {item.shape}" for item in read_scene(image))


def share_read(sigma: float, noise: float, count: int) -> float:
    """Share of scenes of which every object is read right."""
    rng, noise_rng = scene_generator("seen", 3), np.random.default_rng(3)
    hits = 0
    for _ in range(count):
        scene = sample_scene(rng, "seen")
        image = render_scene(scene)
        if sigma:
            image = degrade(image, sigma, noise, noise_rng)
        hits += names_read(image) == sorted(item.name for item in scene.objects)
    return hits / count


def test_clean_renders_are_read_without_error():
    assert share_read(0.0, 0.0, 1500) >= 0.999


@pytest.mark.parametrize(("sigma", "noise"), [(0.7, 8.0), (0.7, 16.0), (1.0, 8.0)])
def test_degraded_renders_are_read_almost_without_error(sigma, noise):
    assert share_read(sigma, noise, 600) >= 0.97


def test_a_request_is_met_by_its_own_render_only():
    rng = scene_generator("seen", 4)
    for number in range(200):
        scene = sample_scene(rng, "seen", num_objects=1 + number % 2)
        image = render_scene(scene)
        assert scene_matches(image, scene)
        item = scene.objects[0]
        colour = next(c for c in COLOURS if c != item.colour)
        shape = next(s for s in SHAPES if s != item.shape)
        rest = scene.objects[1:]
        for wrong in (replace(item, colour=colour), replace(item, shape=shape)):
            assert not scene_matches(image, Scene((wrong, *rest), scene.background))
        assert not scene_matches(np.full_like(image, 40), scene)


def test_the_relation_counts_whichever_way_it_is_read():
    first = SceneObject("red", "circle", 16, 6, 9)
    second = SceneObject("blue", "square", 16, 26, 9)
    image = render_scene(Scene((first, second), 40))
    assert scene_matches(image, Scene((first, second), 40))
    assert scene_matches(image, Scene((second, first), 200))
    swapped = (replace(first, column=26.0), replace(second, column=6.0))
    assert not scene_matches(image, Scene(swapped, 40))
    turned = (replace(first, row=6.0, column=16.0), replace(second, row=26.0, column=16.0))
    assert not scene_matches(image, Scene(turned, 40))


def test_a_further_object_or_a_missing_one_fails_the_request():
    first = SceneObject("red", "circle", 16, 6, 9)
    second = SceneObject("blue", "square", 16, 26, 9)
    assert not scene_matches(render_scene(Scene((first, second), 40)), Scene((first,), 40))
    assert not scene_matches(render_scene(Scene((first,), 40)), Scene((first, second), 40))


def test_specks_are_ignored_and_blobs_of_no_shape_are_unclear():
    image = render_scene(Scene((SceneObject("red", "circle", 16, 6, 9),), 40))
    image[2:5, 28:31] = COLOURS["blue"]
    assert names_read(image) == ["red circle"]
    image[28:30, 0:30] = COLOURS["green"]
    assert names_read(image) == [f"green {UNCLEAR}", "red circle"]


def test_centre_and_area_are_those_of_the_drawn_shape():
    (seen,) = read_scene(render_scene(Scene((SceneObject("cyan", "square", 12, 20, 8),), 210)))
    assert seen.centre == (12.0, 20.0)
    assert seen.area == pytest.approx(64, rel=0.02)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="expected \\(32, 32, 3\\) uint8"):
        read_scene(np.zeros((28, 28, 3), dtype=np.uint8))
    three = sample_scene(scene_generator("seen", 0), "seen", num_objects=3)
    with pytest.raises(ValueError, match="1 or 2 objects"):
        scene_matches(render_scene(three), three)
