"""Tokenizers whose codes are a grid: one code per row and dimension, each with a fixed meaning.

Holds what the bins and the coefficients share: reading codes of any form, and the two ways of
deciding on a value, the code itself or the mean over a distribution of codes.
"""

# Shapes: R rows, D dimensions, C codes.

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .action_tokenizer import ActionTokenizer, check_finite


class GridTokenizer(ActionTokenizer):
    """A tokenizer of R x D codes in [0, num_bins), of which codes 0 to `num_levels - 1` are used.

    Attributes:
        num_bins: size of the id range.
    """

    num_bins: int

    @property
    def num_codes(self) -> int:
        """Codes lie in [0, num_codes)."""
        return self.num_bins

    @property
    def num_levels(self) -> int:
        """Codes that `encode` gives; the last one stands for those behind it too."""
        return self.num_bins

    @property
    def code_shape(self) -> tuple[int, ...]:
        """(R, D) of the codes of one chunk, (D,) of a vector."""
        return self.grid if self.horizon is not None else (self.dim,)

    @abstractmethod
    def _values_of(self, levels: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values of (..., *code_shape) levels, which need not be whole numbers."""

    def decode(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Values of the codes; any integers give values between `low` and `high`.

        Args:
            codes: (..., R, D) or (..., R * D) integers, or (..., D) when there is no horizon.
                Codes outside [0, num_bins) count as the nearest one.

        Returns:
            (..., T, D) or (..., D) float32.

        Raises:
            TypeError: if the codes are not integers.
            ValueError: if the shape is wrong.
        """
        array = np.asarray(codes)
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"codes must be integers, got {array.dtype}")
        levels = np.clip(array, 0, self.num_levels - 1).astype(np.float64)
        return self._values_of(self._gridded(levels, "codes"))

    def decode_mean(self, probabilities: ArrayLike) -> NDArray[np.float32]:
        """Mean of the decoded values over a distribution at each position.

        The choice between this and `decode` of the likeliest codes is free: the mean has the
        smaller squared error, but lies between two ways of acting where both are likely.

        Args:
            probabilities: (..., R, D, C) or (..., R * D, C), or (..., D, C) when there is no
                horizon; C = num_bins. Weights that do not sum to 1 are divided by their sum.

        Returns:
            (..., T, D) or (..., D) float32.

        Raises:
            ValueError: if the shape is wrong, a weight is negative or not finite, or all of a
                position are zero.
        """
        array = np.asarray(probabilities, dtype=np.float64)
        if array.ndim < 2 or array.shape[-1] != self.num_bins:
            raise ValueError(
                f"probabilities must end with {self.num_bins} codes, got shape {array.shape}"
            )
        check_finite(array)
        most = array.max(axis=-1, keepdims=True)
        if (array < 0).any() or not (most > 0).all():
            raise ValueError("probabilities must be >= 0 and not all zero at a position")
        array = array / most  # no sum of what follows overflows
        totals = array.sum(axis=-1)
        levels = np.minimum(np.arange(self.num_bins), self.num_levels - 1)
        return self._values_of(self._gridded(array @ levels / totals, "probabilities"))

    def _gridded(self, array: NDArray[np.float64], what: str) -> NDArray[np.float64]:
        """(..., *code_shape) view of an array that may be flat; ValueError if it is neither."""
        wanted = self.code_shape
        if array.shape[-len(wanted) :] == wanted:
            return array
        if array.ndim == 0 or array.shape[-1] != self.num_tokens:
            raise ValueError(
                f"{what} must have shape (..., {', '.join(map(str, wanted))}) or "
                f"(..., {self.num_tokens}), got {array.shape}"
            )
        return array.reshape(*array.shape[:-1], *wanted)
