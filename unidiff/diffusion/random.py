"""Random numbers as counters: every draw is a hash of what it is for.

A number depends on its key (a row's seed, or a sample's), the purpose of the draw, the token's
index in its row and the step in its block, and on nothing else: not on batch, padding, device,
topology or resume. The hash chains the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast
splittable pseudorandom number generators", figure 17) in wrapping int64 arithmetic, so it is
bit-exact wherever torch runs. Checked in tests/diffusion/test_random.py against arithmetic on
Python integers.
"""

# Shapes: B rows; everything else broadcasts.

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: SplitMix64's step
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of SplitMix64's finaliser
_UNIFORM_BITS = 52  # with half a unit added, every value is exact in float64 and inside (0, 1)


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as a Python integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """One SplitMix64 output: a bijection of 64-bit words that scatters neighbours."""
    x = x + _signed(_GAMMA)
    x = (x ^ _shift_right(x, 30)) * _signed(_MULTIPLIERS[0])
    x = (x ^ _shift_right(x, 27)) * _signed(_MULTIPLIERS[1])
    return x ^ _shift_right(x, 31)


def _word(value: int | Tensor) -> Tensor:
    """An int64 tensor of the value; Python integers wrap to 64 bits."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            raise TypeError(f"counters must be integers, got a {value.dtype} tensor")
        return value.to(torch.int64)
    return torch.tensor(_signed(int(value)), dtype=torch.int64)


def hash_integers(*values: int | Tensor) -> Tensor:
    """Hash of a tuple of integers; the order matters.

    Args:
        values: integers or integer tensors that broadcast together, at least one.

    Returns:
        int64 tensor of the broadcast shape, all 64 bits used.

    Raises:
        ValueError: if no value is given.
        TypeError: if a value is a floating-point tensor.
    """
    if not values:
        raise ValueError("hash_integers needs at least one integer")
    state = _word(len(values))
    for value in values:
        state = _mix(state ^ _mix(_word(value)))
    return state


def uniform(
    key: int | Tensor, draw: int | Tensor, index: int | Tensor, step: int | Tensor
) -> Tensor:
    """Uniform random numbers in (0, 1), one per counter.

    Args:
        key: seed of the row, or of the training sample.
        draw: what the number is for, so that two uses of one place differ.
        index: index of the token, counted from the row's first real token.
        step: step in the token's block.

    Returns:
        float64 tensor of the broadcast shape, strictly between 0 and 1.
    """
    bits = _shift_right(hash_integers(key, draw, index, step), 64 - _UNIFORM_BITS)
    return (bits.to(torch.float64) + 0.5) * 2.0**-_UNIFORM_BITS


def row_seeds(seed: int, num_rows: int) -> Tensor:
    """(B,) int64 seeds of a batch's rows: hash of the scalar seed and the row index."""
    return hash_integers(seed, torch.arange(num_rows, dtype=torch.int64))
