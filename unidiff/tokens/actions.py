"""Bins: each dimension of an action or a state becomes one of a few codes, and back.

Between the 1st and the 99th percentile lie `num_bins` bins of equal width; what lies outside is
clipped. One code per timestep and dimension, timestep-major, so every position has a fixed meaning.
Knows nothing of the joint vocabulary: codes start at 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_QUANTILES = (0.01, 0.99)


@dataclass(frozen=True)
class BinTokenizer:
    """Uniform bins per dimension.

    Attributes:
        low: lower edge of the first bin of each dimension, in the units of the values.
        high: upper edge of the last bin of each dimension; equal to `low` for a constant dimension.
        num_bins: number of bins of every dimension.
        horizon: timesteps of one chunk; None for single vectors.

    Source: quantile bins as in OpenVLA (arXiv 2406.09246, section 3.2), but with `num_bins` true
        bins and their centres; checked in tests/tokens/test_actions.py.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    num_bins: int = 256
    horizon: int | None = None

    def __post_init__(self) -> None:
        """Reject statistics that cannot be bins."""
        object.__setattr__(self, "low", tuple(float(value) for value in self.low))
        object.__setattr__(self, "high", tuple(float(value) for value in self.high))
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(
                f"low and high need one value per dimension, got {len(self.low)} and "
                f"{len(self.high)}"
            )
        if not all(math.isfinite(value) for value in self.low + self.high):
            raise ValueError(f"low and high must be finite, got {self.low} and {self.high}")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be <= high, got {self.low} and {self.high}")
        if self.num_bins < 2:
            raise ValueError(f"num_bins must be >= 2, got {self.num_bins}")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon must be >= 1 or None, got {self.horizon}")

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.low)

    @property
    def num_tokens(self) -> int:
        """Codes of one chunk, or of one vector when there is no horizon."""
        return self.dim * (self.horizon or 1)

    @classmethod
    def fit(
        cls, values: ArrayLike, num_bins: int = 256, horizon: int | None = None
    ) -> "BinTokenizer":
        """Bins between the 1st and 99th percentile of each dimension.

        Args:
            values: (N, ..., D) finite numbers.
            num_bins: number of bins of every dimension.
            horizon: timesteps of one chunk; None for single vectors.

        Raises:
            ValueError: if there are no values or one is not finite.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.ndim < 2 or array.size == 0:
            raise ValueError(f"values must have shape (N, ..., D) and hold some, got {array.shape}")
        _check_finite(array)
        low, high = np.quantile(array.reshape(-1, array.shape[-1]), _QUANTILES, axis=0)
        return cls(tuple(low.tolist()), tuple(high.tolist()), num_bins, horizon)

    def encode(self, values: ArrayLike) -> NDArray[np.int64]:
        """Codes of values; what lies outside the range takes the nearest bin.

        Args:
            values: (..., horizon, D), or (..., D) when there is no horizon.

        Returns:
            int64 array of the same shape, each in [0, num_bins).

        Raises:
            ValueError: if the shape is wrong or a value is not finite.
        """
        array = np.asarray(values, dtype=np.float64)
        wanted = self._shape()
        if array.shape[-len(wanted) :] != wanted:
            raise ValueError(
                f"values must have shape (..., {', '.join(map(str, wanted))}), got {array.shape}"
            )
        _check_finite(array)
        low, high = np.array(self.low), np.array(self.high)
        is_constant = high <= low
        width = np.where(is_constant, 1.0, high - low)
        share = np.where(is_constant, 0.5, (np.clip(array, low, high) - low) / width)
        codes = np.clip(np.floor(share * self.num_bins), 0, self.num_bins - 1)
        return np.asarray(codes, dtype=np.int64)

    def decode(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Bin centres; any integers give values between `low` and `high`.

        Args:
            codes: (..., horizon, D) or (..., horizon * D) integers, or (..., D) when there is no
                horizon. Codes outside [0, num_bins) take the nearest bin.

        Returns:
            (..., horizon, D) or (..., D) float32.

        Raises:
            TypeError: if the codes are not integers.
            ValueError: if the shape is wrong.
        """
        array = np.asarray(codes)
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"codes must be integers, got {array.dtype}")
        wanted = self._shape()
        if array.shape[-len(wanted) :] != wanted:
            if array.ndim == 0 or array.shape[-1] != self.num_tokens:
                raise ValueError(
                    f"codes must have shape (..., {', '.join(map(str, wanted))}) or "
                    f"(..., {self.num_tokens}), got {array.shape}"
                )
            array = array.reshape(*array.shape[:-1], *wanted)
        share = (np.clip(array, 0, self.num_bins - 1) + 0.5) / self.num_bins
        low, high = np.array(self.low), np.array(self.high)
        return np.asarray(low * (1 - share) + high * share, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for `processor_config.json`."""
        return {
            "low": list(self.low),
            "high": list(self.high),
            "num_bins": self.num_bins,
            "horizon": self.horizon,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BinTokenizer":
        """Bins from `to_dict`'s dictionary; raises ValueError naming a missing or unknown key."""
        expected = {"low", "high", "num_bins", "horizon"}
        if set(values) != expected:
            raise ValueError(f"bins need exactly the keys {sorted(expected)}, got {sorted(values)}")
        return cls(
            tuple(values["low"]), tuple(values["high"]), values["num_bins"], values["horizon"]
        )

    def _shape(self) -> tuple[int, ...]:
        """Shape of one chunk or vector."""
        return (self.dim,) if self.horizon is None else (self.horizon, self.dim)


def _check_finite(array: NDArray[np.float64]) -> None:
    """Raise ValueError if a value is NaN or infinite."""
    if not np.isfinite(array).all():
        raise ValueError(
            f"values must be finite, got {int((~np.isfinite(array)).sum())} NaN or infinite "
            f"of {array.size}: remove them before encoding"
        )
