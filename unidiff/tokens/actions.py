"""Bins: each dimension of an action or a state becomes one of a few codes, and back.

Between the ends of a dimension's range lie `num_bins` bins of equal width; what lies outside is
clipped. One code per timestep and dimension, timestep-major, so every position has a fixed meaning.
Knows nothing of the joint vocabulary: codes start at 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .action_grids import GridTokenizer
from .action_tokenizer import check_count, fitted_range


@dataclass(frozen=True)
class BinTokenizer(GridTokenizer):
    """Uniform bins per dimension; a value in the range comes back within half a bin.

    Attributes:
        low: lower edge of the first bin of each dimension, in the units of the values.
        high: upper edge of the last bin of each dimension; equal to `low` for a constant dimension.
        num_bins: number of bins of every dimension.
        horizon: timesteps of one chunk; None for single vectors.
        is_gripper: see `ActionTokenizer`, as the following.
        is_delta: whether values are changes of the state.
        statistics: what the range was fitted to.

    Source: quantile bins as in OpenVLA (arXiv 2406.09246, section 3.2), but with `num_bins` true
        bins and their centres; checked in tests/tokens/test_actions.py.
    """

    kind: ClassVar[str] = "bins"

    low: tuple[float, ...]
    high: tuple[float, ...]
    num_bins: int = 256
    horizon: int | None = None
    is_gripper: tuple[bool, ...] = ()
    is_delta: bool = False
    statistics: str = "q01_q99"

    def __post_init__(self) -> None:
        """Reject statistics that cannot be bins."""
        self._check_range()
        check_count("num_bins", self.num_bins, 2)

    @property
    def grid(self) -> tuple[int, int]:
        """(timesteps, dimensions)."""
        return self.horizon or 1, self.dim

    @classmethod
    def fit(
        cls,
        values: ArrayLike,
        num_bins: int = 256,
        horizon: int | None = None,
        statistics: str = "q01_q99",
        is_gripper: Sequence[bool] = (),
        is_delta: bool = False,
    ) -> "BinTokenizer":
        """Bins over the range of each dimension in a data set.

        Args:
            values: (N, ..., D) finite numbers.
            num_bins: number of bins of every dimension.
            horizon: timesteps of one chunk; None for single vectors.
            statistics: see `fitted_range`.
            is_gripper: D booleans, dimensions that keep the range -1 to 1; or none.
            is_delta: whether values are changes of the state.

        Raises:
            ValueError: if there are no values or one is not finite.
        """
        low, high = fitted_range(values, statistics, is_gripper)
        return cls(low, high, num_bins, horizon, tuple(is_gripper), is_delta, statistics)

    def encode(self, values: ArrayLike) -> NDArray[np.int64]:
        """Codes of values; what lies outside the range takes the nearest bin.

        Args:
            values: (..., horizon, D), or (..., D) when there is no horizon.

        Returns:
            int64 array of the same shape, each in [0, num_bins).

        Raises:
            ValueError: if the shape is wrong or a value is not finite.
        """
        codes = np.clip(np.floor(self._shares(values) * self.num_bins), 0, self.num_bins - 1)
        return np.asarray(codes, dtype=np.int64)

    def _values_of(self, levels: NDArray[np.float64]) -> NDArray[np.float32]:
        """Centres of the bins."""
        return self._at_shares((levels + 0.5) / self.num_bins)
