"""What demonstrations show, unseen in training: test photographs, scenes never combined so."""

# Shapes: N photographs.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .garments import load_fashion_mnist, pad_to_canvas
from .scenes import Scene, render_scene, sample_scene, scene_generator

Picture = np.ndarray  # (H, W, 3) uint8
UNSEEN = "unseen"


@dataclass(frozen=True)
class HeldOut:
    """Photographs of the test split and a stream of random choices.

    Attributes:
        photographs: (N, 32, 32, 3) uint8.
        labels: (N,) int64.
        seed: decides everything that is shown.
    """

    photographs: Picture
    labels: np.ndarray
    seed: int

    def rng(self, purpose: int) -> np.random.Generator:
        """Random choices of one part of the demonstration; parts do not disturb each other."""
        return np.random.default_rng([self.seed, purpose])

    def choose_photographs(self, purpose: int, count: int) -> np.ndarray:
        """(count,) indices of photographs, of as many classes as possible."""
        rng = self.rng(purpose)
        classes = [int(rng.permutation(10)[0])] if count == 1 else rng.permutation(10).tolist()
        chosen = []
        for number in range(count):
            members = np.flatnonzero(self.labels == classes[number % len(classes)])
            chosen.append(int(members[rng.integers(len(members))]))
        return np.array(chosen)

    def choose_scenes(
        self, purpose: int, count: int, num_objects: int | None = None
    ) -> list[Scene]:
        """Scenes with a combination that never occurs in training."""
        first = 1000 * (100 * self.seed + purpose)
        return [
            sample_scene(scene_generator(UNSEEN, first + number), UNSEEN, num_objects)
            for number in range(count)
        ]


def held_out(seed: int) -> HeldOut:
    """The held-out data.

    Raises:
        FileNotFoundError: if Fashion-MNIST is not there; says how to get it.
        ValueError: if the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"the seed of a demonstration must be >= 0, got {seed}")
    images, labels = load_fashion_mnist("test")
    return HeldOut(pad_to_canvas(images), labels, seed)


def scene_pictures(scenes: Sequence[Scene]) -> list[Picture]:
    """The picture of each scene."""
    return [render_scene(scene) for scene in scenes]
