"""Sums: right, of the wanted order, and held out by their numbers alone."""

import numpy as np
import pytest

from unidiff.data.sources.additions import additions, heldout_pairs


@pytest.mark.parametrize("order", ["least_first", "most_first"])
def test_sums_are_right_in_either_order(order):
    for prompt, total in additions(200, "train", 0, order=order):
        first, second = prompt.removesuffix("=").split("+")
        assert (len(first), len(second), len(total)) == (4, 4, 5)
        digits = total[::-1] if order == "least_first" else total
        assert int(digits) == int(first) + int(second)


def test_a_tenth_of_the_pairs_is_held_out_and_never_trained_on():
    numbers = np.random.default_rng(0).integers(0, 10_000, (20_000, 2))
    assert heldout_pairs(numbers).mean() == pytest.approx(0.1, abs=0.01)
    train, heldout = (dict(additions(2_000, split, 0, digits=2)) for split in ("train", "heldout"))
    assert not set(train) & set(heldout)
    assert len(additions(7, "heldout", 1)) == 7
    assert additions(7, "heldout", 1) != additions(7, "heldout", 2)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="split must be"):
        additions(1, "test", 0)
    with pytest.raises(ValueError, match="order must be one of"):
        additions(1, "train", 0, order="random")
