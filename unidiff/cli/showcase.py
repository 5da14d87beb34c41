"""What the demonstration shows: held-out inputs, and one row for everything asked of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unidiff.data.sources.garments import load_fashion_mnist, pad_to_canvas
from unidiff.data.sources.scenes import Scene, render_scene, sample_scene, scene_generator

from .session import Answer

Picture = np.ndarray  # (H, W, 3) uint8
UNSEEN = "unseen"


@dataclass(frozen=True)
class Row:
    """One thing asked of the model.

    Attributes:
        task: what it is an example of.
        given: what the model was told.
        output: what it said or did.
        truth: what is right.
        is_right: whether it was; None where nobody can say.
        num_forwards: NFE.
        tokens_per_forward: tokens up to the end token / NFE.
        seconds: wall time.
        pictures: what the gallery shows of it, left to right.
    """

    task: str
    given: str
    output: str
    truth: str
    is_right: bool | None
    num_forwards: int
    tokens_per_forward: float
    seconds: float
    pictures: tuple[Picture, ...] = ()

    @classmethod
    def of(
        cls,
        task: str,
        given: str,
        answer: Answer,
        truth: str,
        is_right: bool | None,
        pictures: Sequence[Picture] = (),
        output: str | None = None,
    ) -> "Row":
        """Row of one answer; its text is the output unless another is given."""
        return cls(
            task=task,
            given=given,
            output=str(answer.value) if output is None else output,
            truth=truth,
            is_right=is_right,
            num_forwards=answer.num_forwards,
            tokens_per_forward=answer.tokens_per_forward,
            seconds=answer.seconds,
            pictures=tuple(pictures),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "task": self.task,
            "input": self.given,
            "output": self.output,
            "truth": self.truth,
            "is_right": self.is_right,
            "num_forwards": self.num_forwards,
            "tokens_per_forward": round(self.tokens_per_forward, 3),
            "seconds": round(self.seconds, 3),
        }


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
        raise ValueError(f"--seed must be >= 0, got {seed}")
    images, labels = load_fashion_mnist("test")
    return HeldOut(pad_to_canvas(images), labels, seed)


def scene_pictures(scenes: Sequence[Scene]) -> list[Picture]:
    """The picture of each scene."""
    return [render_scene(scene) for scene in scenes]
