"""Where things lie at the start: drawn from (split, seed) alone, and never in both splits.

The box of possible layouts is cut into `NUM_CELLS` cells along every side that has a length. The
sum of a cell's indices decides whose it is, so no test layout lies in a cell of a training layout:
they are unseen by construction, not by luck. A quarter of the cells is for testing, everywhere
between training cells, so that a policy must interpolate and not extrapolate.

Source: own derivation; tested in plugins/vla/tests/test_layouts.py.
"""

from dataclasses import dataclass, field

import numpy as np

SPLITS = ("train", "test")
NUM_CELLS = 16  # along one side
_PERIOD, _TEST_REMAINDER = 4, 2
_MAX_DRAWS = 10_000


def check_split(split: str) -> None:
    """Refuse a name that is not a split.

    Raises:
        ValueError: if `split` is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}; got {split=}")


def cell_of(layout: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[int, ...]:
    """Indices in [0, `NUM_CELLS`) of the cell that holds a layout, 0 along sides without length.

    Args:
        layout: (n,) numbers within the box.
        low: (n,) smallest values.
        high: (n,) largest values.
    """
    width = np.where(high > low, high - low, 1.0)
    indices = np.floor((layout - low) / width * NUM_CELLS).astype(int)
    return tuple(np.where(high > low, np.clip(indices, 0, NUM_CELLS - 1), 0).tolist())


def split_of(layout: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The split that a layout belongs to: "train" or "test". Arguments as of `cell_of`."""
    is_test = sum(cell_of(layout, low, high)) % _PERIOD == _TEST_REMAINDER
    return "test" if is_test else "train"


@dataclass
class LayoutSampler:
    """Draws layouts of one split; the same split and seed draw the same ones in the same order.

    Attributes:
        split: "train" or "test".
        seed: integer >= 0.
        low: (n,) smallest values.
        high: (n,) largest values.
        last: (n,) the latest layout drawn; empty before the first.

    Raises:
        ValueError: if the split is unknown or the box is a single point, which cannot be split.
    """

    split: str
    seed: int
    low: np.ndarray
    high: np.ndarray
    last: np.ndarray = field(default_factory=lambda: np.empty(0), init=False)

    def __post_init__(self) -> None:
        check_split(self.split)
        if not (self.high > self.low).any():
            raise ValueError(f"expected a box of layouts with some length, got {self.low=}")
        self._rng = np.random.default_rng((self.seed, SPLITS.index(self.split)))

    def draw(self) -> np.ndarray:
        """The next layout, (n,) float64, uniform over the cells of the split."""
        for _ in range(_MAX_DRAWS):
            layout = self._rng.uniform(self.low, self.high)
            if split_of(layout, self.low, self.high) == self.split:
                self.last = layout.copy()
                return layout
        raise AssertionError(f"no layout of {self.split=} in {_MAX_DRAWS} draws")
