"""Pictures of any size cut into patches (Qwen2-VL): whole numbers, no pixels.

A tower gives one feature for each square of patches that it merges. The features keep the picture's
rows and columns as positions. Source: Qwen2-VL, arXiv 2409.12191, section 2.1.
"""

# Shapes: B rows, L tokens.

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .tiles import Shape


@dataclass(frozen=True)
class Patches:
    """How a checkpoint cuts pictures.

    Attributes:
        side: pixels of a patch along each side.
        frames: how often a still picture is repeated within a patch.
        merge: patches along each side that become one feature.
    """

    side: int = 14
    frames: int = 2
    merge: int = 2

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)

    @property
    def square(self) -> int:
        """Pixels of a feature along each side."""
        return self.side * self.merge

    def enlarged(self, size: Shape, least: int) -> tuple[int, int]:
        """(height, width) in pixels that a picture with a side shorter than a feature is scaled to.

        The shorter side becomes a feature's and the other grows with it; then both are rounded to
        whole features, or where these have too few pixels are scaled once more and rounded up.

        Args:
            size: (height, width) of the picture in pixels.
            least: pixels that it has afterwards, at least.

        Source: `image_processing_dreamvl.py` of DreamLM/Dream-VLX, in own words.
        """
        height, width = size
        if height < width:
            height, width = self.square, round(width / height * self.square)
        else:
            height, width = round(height / width * self.square), self.square
        down, across = (round(one / self.square) * self.square for one in (height, width))
        if down * across < least:
            times = math.sqrt(least / (height * width))
            down, across = (
                math.ceil(one * times / self.square) * self.square for one in (height, width)
            )
        return down, across

    def grid(self, shape: Shape) -> tuple[int, int, int]:
        """(times, rows, columns) of features of a picture of (times, rows, columns) patches.

        Raises:
            ValueError: if they cannot be merged.
        """
        times, rows, columns = (int(one) for one in shape)
        if min(times, rows, columns) < 1 or rows % self.merge or columns % self.merge:
            raise ValueError(
                f"image_grid_thw must have rows and columns of patches that {self.merge} divides, "
                f"got {[times, rows, columns]}: take it from the processor"
            )
        return times, rows // self.merge, columns // self.merge

    def num_positions(self, shape: Shape) -> int:
        """Features of a picture of (times, rows, columns) patches."""
        times, rows, columns = self.grid(shape)
        return times * rows * columns

    def positions(self, ids_L: np.ndarray, token: int, shapes: Sequence[Shape]) -> np.ndarray:
        """(3, L) positions of a row: of a picture those of its grid, of all else one by one.

        What follows a picture continues behind the largest of its positions.

        Args:
            ids_L: (L,) ids of the real tokens.
            token: id of a soft position.
            shapes: (times, rows, columns) in patches of each picture of the row.

        Raises:
            ValueError: if the soft positions are not those of the pictures.
        """
        parts: list[np.ndarray] = []
        start = at = 0
        for shape in shapes:
            found = np.flatnonzero(ids_L[at:] == token)
            ahead = int(found[0]) if len(found) else len(ids_L) - at
            grid = self.grid(shape)
            stop = at + ahead + self.num_positions(shape)
            if not (ids_L[at + ahead : stop] == token).all() or stop > len(ids_L):
                raise ValueError(
                    f"a picture of {list(shape)} patches needs {self.num_positions(shape)} "
                    f"positions (id {token}) next to each other in input_ids"
                )
            parts += [_line(start, ahead), start + ahead + np.indices(grid).reshape(3, -1)]
            start += ahead + max(grid)
            at = stop
        parts.append(_line(start, len(ids_L) - at))
        return np.concatenate(parts, axis=1).astype(np.int64)


def _line(start: int, length: int) -> np.ndarray:
    """(3, length) positions that count on in all three sections."""
    return np.tile(np.arange(start, start + length), (3, 1))
