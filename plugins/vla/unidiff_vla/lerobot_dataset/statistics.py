"""Smallest, largest, mean, spread and quantiles of each feature, exact, in one pass.

Pictures are counted in a histogram of 256 values a channel and read in [0, 1]; numbers are few and
are kept. Their quantiles are those of numpy's linear rule.
"""

from typing import Any

import numpy as np

from .features import IMAGE, Feature

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)
_LEVELS = np.arange(256) / 255.0

Statistics = dict[str, np.ndarray]


class StatisticsCollector:
    """Takes the frames of one feature, episode by episode."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._values: list[np.ndarray] = []
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._num_frames = 0

    def add(self, values: np.ndarray) -> None:
        """Take (T, *shape) values."""
        self._num_frames += len(values)
        if self._feature.dtype != IMAGE:
            self._values.append(values.astype(np.float64))
            return
        for channel in range(3):
            self._counts[channel] += np.bincount(values[..., channel].ravel(), minlength=256)

    def result(self) -> Statistics:
        """Each of `STATISTICS`: (n,) of numbers, (3, 1, 1) of pictures; `count` is (1,) frames."""
        if self._feature.dtype == IMAGE:
            found = _of_histograms(self._counts)
            found = {name: values.reshape(3, 1, 1) for name, values in found.items()}
        else:
            found = _of_values(np.concatenate(self._values))
        return {**found, "count": np.array([self._num_frames])}


def statistics_of(feature: Feature, values: np.ndarray) -> Statistics:
    """The statistics of one episode's (T, *shape) values."""
    collector = StatisticsCollector(feature)
    collector.add(values)
    return collector.result()


def to_json(statistics: dict[str, Statistics]) -> dict[str, Any]:
    """As in `meta/stats.json`."""
    return {
        feature: {name: values.tolist() for name, values in found.items()}
        for feature, found in statistics.items()
    }


def _of_values(values: np.ndarray) -> Statistics:
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def _of_histograms(counts: np.ndarray) -> Statistics:
    """Of (3, 256) counts."""
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ _LEVELS
    spread = np.sqrt((share * (_LEVELS - mean[:, None]) ** 2).sum(1))
    found = {name: np.array([_quantile(row, q) for row in counts]) for name, q in QUANTILES.items()}
    ends = [np.flatnonzero(row)[[0, -1]] for row in counts]
    low, high = (np.array([_LEVELS[end[side]] for end in ends]) for side in (0, 1))
    return {"min": low, "max": high, "mean": mean, "std": spread, **found}


def _quantile(counts: np.ndarray, q: float) -> float:
    """Between the two values around place q (n - 1) of the sorted values."""
    place = q * (counts.sum() - 1)
    below = int(np.floor(place))
    first, second = np.searchsorted(counts.cumsum(), [below, int(np.ceil(place))], side="right")
    return float(_LEVELS[first] + (place - below) * (_LEVELS[second] - _LEVELS[first]))
