"""The pictures of an episode, thinned while they come in, so that a long one stays small."""

import numpy as np

MOST_FRAMES = 300


class Film:
    """At most `most` pictures, evenly apart, and always the latest.

    Attributes:
        frames: (H, W, 3) uint8 each.
        steps: number of steps taken before each frame.
    """

    def __init__(self, most: int = MOST_FRAMES) -> None:
        if most < 2:
            raise ValueError(f"a film needs at least 2 frames; got {most=}")
        self.frames: list[np.ndarray] = []
        self.steps: list[int] = []
        self._most, self._stride = most, 1

    def add(self, frame: np.ndarray, step: int) -> None:
        """Keep a picture; every second one goes when there are too many.

        Args:
            frame: (H, W, 3) uint8.
            step: steps taken before it, larger than before.
        """
        if self.steps and self.steps[-1] % self._stride:  # it was kept as the latest only
            self.frames.pop()
            self.steps.pop()
        self.frames.append(np.asarray(frame).copy())
        self.steps.append(step)
        if len(self.steps) > self._most:
            self._stride *= 2
            last = len(self.steps) - 1
            kept = [i for i, one in enumerate(self.steps) if one % self._stride == 0 or i == last]
            self.frames = [self.frames[i] for i in kept]
            self.steps = [self.steps[i] for i in kept]
