"""What all tokenizers of actions share: the range of each dimension, checks, and their file.

A range maps each dimension's values to shares in [0, 1] and back; what lies outside is clipped.
Knows nothing of codes: bins, coefficients and merges are the subclasses'.
"""

# Shapes: N samples, T timesteps (the horizon), D dimensions.

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checkpoint import check_exists, read_json

ACTION_TOKENIZER_FILE = "action_tokenizer.json"
STATISTICS = ("q01_q99", "min_max", "mean_std")
DEFAULT_KIND = "bins"  # of a file that names none: the first checkpoints knew no other
_NUM_DEVIATIONS = 3.0  # a range by mean and standard deviation reaches this many to each side
_GRIPPER_RANGE = (-1.0, 1.0)
_LARGEST = float(np.finfo(np.float32).max)
_FURTHER = ("is_gripper", "is_delta", "statistics")  # in files only where not the default


class ActionTokenizer(ABC):
    """A tokenizer of action chunks; the frozen dataclasses that inherit provide the attributes.

    Attributes:
        low: lower end of each dimension's range, in the units of the values.
        high: upper end; equal to `low` for a constant dimension, which decodes to it.
        horizon: timesteps of one chunk; None for single vectors.
        is_gripper: dimensions that are exempt from normalisation: their range is -1 to 1 whatever
            the data were. Empty for none.
        is_delta: whether values are changes of the state, not targets. Only carried along, for
            whoever executes the actions.
        statistics: what the range was fitted to, one of `STATISTICS`. Only carried along.
    """

    kind: ClassVar[str]
    low: tuple[float, ...]
    high: tuple[float, ...]
    horizon: int | None
    is_gripper: tuple[bool, ...]
    is_delta: bool
    statistics: str

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.low)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, D) of one chunk, (D,) of a vector when there is no horizon."""
        return (self.dim,) if self.horizon is None else (self.horizon, self.dim)

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Codes lie in [0, num_codes)."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the codes of one chunk; ValueError if their number is not fixed."""

    @property
    def num_tokens(self) -> int:
        """Codes of one chunk, or of one vector when there is no horizon."""
        return math.prod(self.grid)

    @abstractmethod
    def encode(self, values: ArrayLike) -> NDArray[np.int64]:
        """Codes of (..., T, D) values; ValueError if the shape is wrong or one is not finite."""

    @abstractmethod
    def decode(self, codes: ArrayLike) -> NDArray[np.float32]:
        """(..., T, D) values of any integer codes, finite and within `low` and `high`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON; what has its default may be left out."""
        values: dict[str, Any] = {} if self.kind == DEFAULT_KIND else {"kind": self.kind}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name not in _FURTHER or value != field.default:
                values[field.name] = list(value) if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Tokenizer from `to_dict`'s dictionary.

        Raises:
            ValueError: if it is of another kind, or a key is missing or unknown.
        """
        if values.get("kind", DEFAULT_KIND) != cls.kind:
            raise ValueError(
                f"{cls.__name__} reads the kind {cls.kind!r}, got {values.get('kind')!r}: use "
                "unidiff.tokens.action_kinds.action_tokenizer"
            )
        expected = {field.name for field in fields(cls)} - set(_FURTHER)  # type: ignore[arg-type]
        if set(values) - {"kind", *_FURTHER} != expected:
            raise ValueError(
                f"{cls.kind} need exactly the keys {sorted(expected)} and may have "
                f"{sorted(_FURTHER)}, got {sorted(values)}"
            )
        return cls(**{name: value for name, value in values.items() if name != "kind"})

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write the one file of the tokenizer under a temporary name, then rename it.

        Returns:
            Path of the file, in a list as transformers has it.
        """
        path = Path(folder) / ACTION_TOKENIZER_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        text = json.dumps({"kind": self.kind, **self.to_dict()}, indent=2, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)
        return [str(path)]

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Tokenizer that `save_pretrained` wrote into the folder.

        Raises:
            FileNotFoundError: if there is no file.
            ValueError: if it is damaged or of another kind.
        """
        return cls.from_dict(read_action_file(folder))

    def _check_range(self) -> None:
        """Bring the range into its form and reject what cannot be one."""
        for name in ("low", "high"):
            try:
                numbers = tuple(float(value) for value in getattr(self, name))
            except TypeError as error:
                raise ValueError(
                    f"{name} must be numbers, one per dimension; got {getattr(self, name)!r}"
                ) from error
            object.__setattr__(self, name, numbers)
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(
                f"low and high need one value per dimension, got {len(self.low)} and "
                f"{len(self.high)}"
            )
        if not all(abs(value) <= _LARGEST for value in self.low + self.high):
            raise ValueError(f"low and high must be finite, got {self.low} and {self.high}")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be <= high, got {self.low} and {self.high}")
        if self.horizon is not None and not (isinstance(self.horizon, int) and self.horizon >= 1):
            raise ValueError(f"horizon must be >= 1 or None, got {self.horizon}")
        if self.statistics not in STATISTICS:
            raise ValueError(f"statistics must be one of {STATISTICS}, got {self.statistics!r}")
        mask = gripper_mask(self.is_gripper, self.dim)
        object.__setattr__(self, "is_gripper", mask)
        ranges = zip(self.low, self.high, strict=True)
        for index, (is_gripper, own) in enumerate(zip(mask, ranges, strict=False)):
            if is_gripper and own != _GRIPPER_RANGE:
                raise ValueError(f"gripper dimension {index} must range from -1 to 1, got {own}")

    def _normalised(self, values: ArrayLike) -> NDArray[np.float64]:
        """(..., *shape) values from -1 at `low` to 1 at `high`; errors as `_shares`."""
        return 2 * self._shares(values) - 1

    def _at_normalised(self, normalised: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values of (..., D) numbers that `_normalised` gives, clipped to the range."""
        return self._at_shares((normalised + 1) / 2)

    def _shares(self, values: ArrayLike) -> NDArray[np.float64]:
        """(..., *shape) places of values in their range, 0 to 1; 0.5 in a constant dimension.

        Raises:
            ValueError: if the shape is wrong or a value is not finite.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.shape[-len(self.shape) :] != self.shape:
            raise ValueError(
                f"values must have shape (..., {', '.join(map(str, self.shape))}), got "
                f"{array.shape}"
            )
        check_finite(array)
        low, high = np.array(self.low), np.array(self.high)
        is_constant = high <= low
        width = np.where(is_constant, 1.0, high - low)
        shares = np.where(is_constant, 0.5, (np.clip(array, low, high) - low) / width)
        return np.asarray(shares, dtype=np.float64)

    def _at_shares(self, shares: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values at (..., D) places, clipped to the range."""
        inside = np.clip(shares, 0.0, 1.0)
        low, high = np.array(self.low), np.array(self.high)
        return np.asarray(low * (1 - inside) + high * inside, dtype=np.float32)


def check_count(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless a number of a tokenizer is a whole one, at least so large."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be >= {least}, a whole number; got {value!r}")


def fitted_range(
    values: ArrayLike, statistics: str, is_gripper: Sequence[bool]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(low, high) of each dimension over a data set; -1 and 1 for a gripper.

    Args:
        values: (N, ..., D) finite numbers.
        statistics: "q01_q99", the 1st and 99th percentile; "min_max"; or "mean_std", the mean
            less and plus three standard deviations.
        is_gripper: D booleans, or none.

    Raises:
        ValueError: if there are no values, one is not finite or the name is unknown.

    Source: percentiles, extremes and the mask as in OpenVLA (arXiv 2406.09246) and its fine-tuning
        recipe (arXiv 2502.19645); three deviations are our choice, since codes need ends.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"values must have shape (N, ..., D) and hold some, got {array.shape}")
    if statistics not in STATISTICS:
        raise ValueError(f"statistics must be one of {STATISTICS}, got {statistics!r}")
    check_finite(array)
    array = array.reshape(-1, array.shape[-1])
    if statistics == "q01_q99":
        low, high = np.quantile(array, (0.01, 0.99), axis=0)
    elif statistics == "min_max":
        low, high = array.min(axis=0), array.max(axis=0)
    else:
        mean, reach = array.mean(axis=0), _NUM_DEVIATIONS * array.std(axis=0)
        low, high = mean - reach, mean + reach
    for index, exempt in enumerate(gripper_mask(is_gripper, array.shape[-1])):
        if exempt:
            low[index], high[index] = _GRIPPER_RANGE
    return tuple(low.tolist()), tuple(high.tolist())


def gripper_mask(is_gripper: Sequence[bool], dim: int) -> tuple[bool, ...]:
    """The mask as a tuple, empty where nothing is a gripper.

    Raises:
        ValueError: if it has another length than `dim`, or holds what is no bool.
    """
    mask = tuple(is_gripper)
    if mask and len(mask) != dim:
        raise ValueError(f"is_gripper needs one bool per dimension, {dim}, got {len(mask)}")
    if not all(isinstance(one, (bool, np.bool_)) for one in mask):
        raise ValueError(f"is_gripper must hold bools, got {mask}")
    return tuple(bool(one) for one in mask) if any(mask) else ()


def read_action_file(folder: str | Path) -> dict[str, Any]:
    """What `ActionTokenizer.save_pretrained` wrote; FileNotFoundError or ValueError if not."""
    path = Path(folder) / ACTION_TOKENIZER_FILE
    check_exists(path)
    return read_json(path)


def check_finite(array: NDArray[np.float64]) -> None:
    """Raise ValueError if a value is NaN or infinite."""
    if not np.isfinite(array).all():
        raise ValueError(
            f"values must be finite, got {int((~np.isfinite(array)).sum())} NaN or infinite "
            f"of {array.size}: remove them before encoding"
        )
