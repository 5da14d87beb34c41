"""The pictures that the tasks bring: photographs and drawn scenes, by split and number."""

from functools import cache

import numpy as np

from unidiff.data.sources.garments import load_fashion_mnist, pad_to_canvas
from unidiff.data.sources.scenes import Scene, sample_scene, scene_generator

SCENE_SPLITS = {"train": "train", "test": "unseen"}  # ours -> of the scenes
FIRST_SEEDS = {  # far from the scenes that the host's training and suites draw
    "text_to_image": 50_000_000,
    "filling": 60_000_000,
    "super_resolution": 40_000_000,
    "editing": 30_000_000,
}


@cache
def _photographs(split: str) -> tuple[np.ndarray, np.ndarray]:
    """((N, 28, 28) uint8, (N,) labels)."""
    return load_fashion_mnist(split)  # type: ignore[arg-type]


def photograph(split: str, number: int) -> tuple[np.ndarray, int]:
    """(32, 32, 3) uint8 photograph of that number, and its class; they repeat after the last."""
    images, labels = _photographs(split)
    index = number % len(images)
    return pad_to_canvas(images[[index]])[0], int(labels[index])


def scene_of(split: str, purpose: str, number: int, num_objects: int | None = None) -> Scene:
    """The scene of that number; purposes, one of `FIRST_SEEDS`, do not share scenes."""
    rng = scene_generator(SCENE_SPLITS[split], FIRST_SEEDS[purpose] + number)
    return sample_scene(rng, SCENE_SPLITS[split], num_objects)
