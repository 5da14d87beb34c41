"""How near a filled hole is to what stood there."""

# Shapes: N examples.

from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from unidiff.plugins import Example


def edit_similarity(results: Sequence[Any], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64 in [0, 1]: 1 less the Levenshtein distance in characters over the longer length.

    Args:
        results: the text of the hole, or a dictionary with the texts of several as `holes`.
        examples: with what stood there as `middle`, or as a list `middles`.
    """
    pairs = zip(results, examples, strict=True)
    return np.array([_mean(_similar, said, example) for said, example in pairs])


def exact_match(results: Sequence[Any], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64, the share of an example's holes that are filled with what stood there."""
    pairs = zip(results, examples, strict=True)
    return np.array([_mean(lambda a, b: float(a == b), said, one) for said, one in pairs])


def _similar(said: str, truth: str) -> float:
    """Edit similarity of two texts."""
    return float(Levenshtein.normalized_similarity(said, truth))


def _mean(score: Any, said: Any, example: Example) -> float:
    """Mean of a score over the holes of one example."""
    truths = example["middles"] if "middles" in example else [example["middle"]]
    texts = [said] if isinstance(said, str) else said["holes"]
    return float(np.mean([score(one, truth) for one, truth in zip(texts, truths, strict=True)]))
