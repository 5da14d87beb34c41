"""Frequencies: an action chunk as quantised coefficients of a cosine transform along time.

As many codes as bins would need, or fewer where the high frequencies are dropped. Frequency-major:
the codes of every dimension's mean come first. Each position has a fixed meaning, so a chunk can be
revealed in any order. Knows nothing of the joint vocabulary: codes start at 0.
"""

# Shapes: N chunks, T timesteps, D dimensions, K frequencies kept.

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .action_grids import GridTokenizer
from .action_tokenizer import check_count, fitted_range


@lru_cache(maxsize=64)
def dct_matrix(horizon: int) -> NDArray[np.float64]:
    """(T, T) orthonormal matrix of the type-II cosine transform; row k holds frequency k.

    The array is shared between calls and cannot be written to.

    Source: the textbook formula; compared with scipy in tests/tokens/test_dct.py.
    """
    frequencies, times = np.arange(horizon)[:, None], np.arange(horizon)[None]
    matrix = np.sqrt(2 / horizon) * np.cos(np.pi * (times + 0.5) * frequencies / horizon)
    matrix[0] /= np.sqrt(2)
    matrix.setflags(write=False)
    return np.asarray(matrix, dtype=np.float64)


@dataclass(frozen=True)
class DctTokenizer(GridTokenizer):
    """Quantised coefficients of each dimension's lowest frequencies.

    A chunk x, normalised to [-1, 1], has the coefficients c = M x, with M of `dct_matrix`. No
    coefficient exceeds r_k = sum over t of |M_kt|, so steps s_k = r_k / h with h = (num_bins - 1)
    // 2 reach every chunk with the 2 h + 1 levels -h to h. Zero is a level: a constant stays one.

    Error of a dimension, in normalised units, for a chunk inside the range: M is orthonormal, so
        sum over t of e_t^2 <= sum over k < K of (s_k / 2)^2 + sum over k >= K of c_k^2,
    half a step for each kept coefficient and the energy of the dropped ones; and with all kept
        |e_t| <= sum over k of |M_kt| s_k / 2.
    Clipping the decoded chunk to [-1, 1] cannot add to it. In the units of the values: times
    (high - low) / 2. A gripper that snaps shut has energy in all frequencies: keep them all then.

    Attributes:
        low: lower end of each dimension's range, in the units of the values.
        high: upper end; equal to `low` for a constant dimension.
        num_bins: size of the id range, >= 3; of an even number the last code is never given.
        horizon: timesteps of one chunk.
        num_frequencies: K, the lowest frequencies kept; None keeps all, as many as timesteps.
        is_gripper: see `ActionTokenizer`, as the following.
        is_delta: whether values are changes of the state.
        statistics: what the range was fitted to.

    Source: transform and order as in FAST (arXiv 2501.09747, section V), steps and bound are our
        own derivation; checked in tests/tokens/test_dct.py.
    """

    kind: ClassVar[str] = "dct"

    low: tuple[float, ...]
    high: tuple[float, ...]
    num_bins: int = 256
    horizon: int | None = None
    num_frequencies: int | None = None
    is_gripper: tuple[bool, ...] = ()
    is_delta: bool = False
    statistics: str = "q01_q99"

    def __post_init__(self) -> None:
        """Reject what cannot hold coefficients."""
        self._check_range()
        check_count("num_bins", self.num_bins, 3)
        if self.horizon is None:
            raise ValueError("horizon must be given: a single vector has no frequencies")
        if self.num_frequencies is not None and not 1 <= self.num_frequencies <= self.horizon:
            raise ValueError(
                f"num_frequencies must lie in [1, {self.horizon}], the horizon, or be None; got "
                f"{self.num_frequencies}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """(frequencies, dimensions)."""
        return self.num_frequencies or self.shape[0], self.dim

    @property
    def num_levels(self) -> int:
        """Codes that `encode` gives: an odd number, so that the middle one is zero."""
        return 2 * self._most + 1

    @property
    def steps(self) -> NDArray[np.float64]:
        """(K,) quantisation steps, in the units of normalised coefficients."""
        return np.asarray(np.abs(self._rows).sum(axis=1) / self._most, dtype=np.float64)

    @classmethod
    def fit(
        cls,
        chunks: ArrayLike,
        num_bins: int = 256,
        num_frequencies: int | None = None,
        statistics: str = "q01_q99",
        is_gripper: Sequence[bool] = (),
        is_delta: bool = False,
    ) -> "DctTokenizer":
        """Tokenizer over the range of each dimension in a data set.

        Args:
            chunks: (N, T, D) finite numbers.
            num_bins: size of the id range.
            num_frequencies: see the class.
            statistics: see `fitted_range`.
            is_gripper: D booleans, dimensions that keep the range -1 to 1; or none.
            is_delta: whether values are changes of the state.

        Raises:
            ValueError: if there are no chunks or a value is not finite.
        """
        horizon = checked_chunks(chunks).shape[1]
        low, high = fitted_range(chunks, statistics, is_gripper)
        mask = tuple(is_gripper)
        return cls(low, high, num_bins, horizon, num_frequencies, mask, is_delta, statistics)

    def encode(self, values: ArrayLike) -> NDArray[np.int64]:
        """Codes of chunks; what lies outside the range is clipped first.

        Args:
            values: (..., T, D).

        Returns:
            (..., K, D) int64, each in [0, num_levels).

        Raises:
            ValueError: if the shape is wrong or a value is not finite.
        """
        coefficients = self._rows @ self._normalised(values)
        levels = np.rint(coefficients / self.steps[:, None]) + self._most
        return np.asarray(np.clip(levels, 0, self.num_levels - 1), dtype=np.int64)

    def _values_of(self, levels: NDArray[np.float64]) -> NDArray[np.float32]:
        """Chunks of (..., K, D) levels; dropped frequencies are zero."""
        coefficients = (levels - self._most) * self.steps[:, None]
        return self._at_normalised(self._rows.T @ coefficients)

    @property
    def _most(self) -> int:
        """Largest level, h in the class's formulas."""
        return (self.num_bins - 1) // 2

    @property
    def _rows(self) -> NDArray[np.float64]:
        """(K, T) rows of the matrix that are kept."""
        return dct_matrix(self.shape[0])[: self.grid[0]]


def checked_chunks(chunks: ArrayLike) -> NDArray[np.float64]:
    """(N, T, D) array of a data set's chunks; ValueError if it has another shape or holds none."""
    array = np.asarray(chunks, dtype=np.float64)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"chunks must have shape (N, T, D) and hold some, got {array.shape}")
    return array
