"""Pictures cut into tiles (LLaVA-NeXT's "anyres"): whole numbers, no pixels.

A picture is fitted into the one of several canvases that keeps most of it, centred, and cut into
square tiles; the whole picture, squeezed into one tile, comes first. A tower gives each tile a
square of features. Those of the tiles are laid side by side, the canvas's margins are cut off, and
where many are left they are thinned out. A learned feature ends each row of the canvas. Source:
ML-GSAI/LLaDA-V's `mm_utils.py` and `llava_arch.py`, in own words.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Shape = Sequence[int]  # of a picture: (height, width) here

_THINNED_FROM = 1.1  # times too many features, along each side


@dataclass(frozen=True)
class Tiles:
    """How a checkpoint cuts pictures.

    Attributes:
        side: pixels of a tile along each side.
        features: of a tile along each side, before they are pooled.
        canvases: (width, height) in pixels of the canvases; an earlier one wins a draw.
        most: tiles' worth of features that a picture keeps at most besides the first tile; None:
            all are kept.
        pool: features along a side that become one by interpolation; 1: none do.
    """

    side: int
    features: int
    canvases: tuple[tuple[int, int], ...]
    most: int | None = None
    pool: int = 1

    def __post_init__(self) -> None:
        """Check that canvases are made of whole tiles."""
        wrong = [one for one in self.canvases if one[0] % self.side or one[1] % self.side]
        if not self.canvases or wrong or min(map(min, self.canvases)) < self.side:
            raise ValueError(
                f"canvases must be one or more (width, height) of whole tiles of {self.side} "
                f"pixels, got {wrong or self.canvases}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Tiles":
        """Tiles of `to_dict`'s dictionary."""
        canvases = tuple((int(width), int(height)) for width, height in values["canvases"])
        return cls(**{**values, "canvases": canvases})

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {**asdict(self), "canvases": [list(one) for one in self.canvases]}

    @property
    def pooled(self) -> int:
        """Features of a tile along each side."""
        return math.ceil(self.features / self.pool)

    def grid(self, size: Shape) -> tuple[int, int]:
        """(rows, columns) of tiles of a picture of (height, width) pixels."""
        width, height = best_canvas((size[0], size[1]), self.canvases)
        return height // self.side, width // self.side

    def num_tiles(self, size: Shape) -> int:
        """Tiles of a picture, the squeezed one included."""
        rows, columns = self.grid(size)
        return 1 + rows * columns

    def kept(self, size: Shape) -> tuple[slice, slice]:
        """Rows and columns of the canvas's features that are not margin."""
        rows, columns = (side * self.pooled for side in self.grid(size))
        height, width = size[0], size[1]
        if width / height > columns / rows:
            margin = (rows - int(height * (columns / width))) // 2
            return slice(margin, rows - margin), slice(0, columns)
        margin = (columns - int(width * (rows / height))) // 2
        return slice(0, rows), slice(margin, columns - margin)

    def thinned(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of features after thinning; the same where few are enough."""
        if self.most is None:
            return rows, columns
        times = math.sqrt(rows * columns / (self.most * self.pooled**2))
        if times <= _THINNED_FROM:
            return rows, columns
        return int(rows // times), int(columns // times)

    def num_positions(self, size: Shape) -> int:
        """Features of a picture of (height, width) pixels."""
        down, across = self.kept(size)
        rows, columns = self.thinned(down.stop - down.start, across.stop - across.start)
        return self.pooled**2 + rows * (columns + 1)


def best_canvas(size: tuple[int, int], canvases: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (width, height) that keeps most of a picture, and of those the one that wastes least.

    Args:
        size: (height, width) of the picture in pixels.
        canvases: (width, height) of each.
    """
    height, width = size

    def rank(canvas: tuple[int, int]) -> tuple[int, int]:
        scale = min(canvas[0] / width, canvas[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - canvas[0] * canvas[1]

    return max(canvases, key=rank)


def fitted(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of a picture that fills a canvas along one side.

    Args:
        size: (height, width) of the picture in pixels.
        canvas: (width, height).
    """
    height, width = size
    across, down = canvas[0] / width, canvas[1] / height
    if across < down:
        return canvas[0], min(math.ceil(height * across), canvas[1])
    return min(math.ceil(width * down), canvas[0]), canvas[1]
