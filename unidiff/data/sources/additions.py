"""Sums of two numbers of equally many digits: a task that a small model learns exactly.

A held-out pair is one in ten, by a hash of its numbers, so it occurs in training in neither run.
"""

# Shapes: N sums.

from typing import Literal

import numpy as np
import torch

from unidiff.diffusion.random import hash_integers

AdditionSplit = Literal["train", "heldout"]
ORDERS = ("least_first", "most_first")
HELDOUT_PER_MILLE = 100


def additions(
    count: int, split: AdditionSplit, seed: int, digits: int = 4, order: str = "least_first"
) -> list[tuple[str, str]]:
    """(prompt, completion) of random sums, such as ("0123+4567=", "09640") least digit first.

    Both numbers are uniform, with leading zeros; a sum has one digit more.

    Args:
        count: sums.
        split: "train", or "heldout": pairs that training never has.
        seed: of the numbers.
        digits: of each number.
        order: of the sum's digits: "least_first" (a carry is then known when it is needed) or
            "most_first".

    Raises:
        ValueError: for an unknown split or order.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f'split must be "train" or "heldout", got {split!r}')
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    rng = np.random.default_rng([seed, split == "heldout"])
    found: list[tuple[str, str]] = []
    while len(found) < count:
        pair_N2 = rng.integers(0, 10**digits, (2 * count, 2))
        is_heldout_N = heldout_pairs(pair_N2)
        for first, second in pair_N2[is_heldout_N == (split == "heldout")].tolist():
            total = f"{first + second:0{digits + 1}d}"
            total = total[::-1] if order == "least_first" else total
            found.append((f"{first:0{digits}d}+{second:0{digits}d}=", total))
    return found[:count]


def heldout_pairs(pair_N2: np.ndarray) -> np.ndarray:
    """(N,) bool, pairs that are held out; depends on the two numbers alone."""
    first_N, second_N = torch.from_numpy(pair_N2.astype(np.int64)).unbind(1)
    hash_N: np.ndarray = hash_integers(first_N, second_N).numpy()
    return hash_N % 1000 < HELDOUT_PER_MILLE
