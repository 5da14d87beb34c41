"""Counter-based random numbers: known answers, independence of shape, uniformity."""

import numpy as np
import pytest
import torch

from unidiff.diffusion.random import hash_integers, row_seeds, uniform

WORD = (1 << 64) - 1


def reference_mix(x: int) -> int:
    """SplitMix64's next output for state `x`, on Python integers."""
    x = (x + 0x9E3779B97F4A7C15) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def reference_hash(*values: int) -> int:
    """`hash_integers` on Python integers, unsigned."""
    state = len(values)
    for value in values:
        state = reference_mix(state ^ reference_mix(value & WORD))
    return state


def test_reference_is_splitmix64() -> None:
    # First outputs of the published generator seeded with 0 and with 1234567.
    assert reference_mix(0) == 0xE220A8397B1DCDAF
    assert reference_mix(1234567) == 6457827717110365317


@pytest.mark.parametrize("values", [(0,), (0, 0), (1, 2, 3, 4), (-5, 2**63 + 7), (2**64 - 1,)])
def test_hash_equals_arithmetic_on_python_integers(values: tuple[int, ...]) -> None:
    assert int(hash_integers(*values)) & WORD == reference_hash(*values)


def test_hash_broadcasts_and_each_element_stands_alone() -> None:
    keys = torch.tensor([[3], [-9]])
    index = torch.arange(5)
    together = hash_integers(keys, 7, index, 2)
    assert together.shape == (2, 5)
    assert int(together[1, 4]) == int(hash_integers(-9, 7, 4, 2))


def test_order_and_count_of_the_integers_matter() -> None:
    assert int(hash_integers(1, 2)) != int(hash_integers(2, 1))
    assert int(hash_integers(1)) != int(hash_integers(1, 0))


def test_uniform_is_the_top_52_bits_and_a_half() -> None:
    expected = ((reference_hash(11, 1, 2, 3) >> 12) + 0.5) * 2.0**-52
    assert float(uniform(11, 1, 2, 3)) == expected
    assert uniform(11, 1, 2, 3).dtype == torch.float64


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = uniform(5, 0, torch.arange(100_000), 0).numpy()
    assert numbers.min() > 0.0
    assert numbers.max() < 1.0
    counts, _ = np.histogram(numbers, bins=100, range=(0.0, 1.0))
    assert ((counts - 1000) ** 2 / 1000).sum() < 160  # chi-square, 99 degrees: p < 1e-4 above


@pytest.mark.parametrize("field", [0, 1, 2, 3])
def test_neighbouring_counters_are_uncorrelated(field: int) -> None:
    counters: list = [5, 1, 2, 3]
    counters[field] = torch.arange(50_000)
    numbers = uniform(*counters).numpy()
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / np.sqrt(50_000)


def test_row_seeds_do_not_depend_on_the_number_of_rows() -> None:
    assert torch.equal(row_seeds(42, 3), row_seeds(42, 8)[:3])
    assert len(set(row_seeds(42, 1000).tolist())) == 1000


def test_floating_point_counters_are_rejected() -> None:
    with pytest.raises(TypeError, match="integers"):
        uniform(torch.tensor(1.0), 0, 0, 0)
    with pytest.raises(ValueError, match="at least one"):
        hash_integers()
