"""The stream: proportions, epochs, and that an item depends on seed and number alone."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from unidiff.data.stream import MixtureStream, Weighted


@dataclass(frozen=True)
class Echo:
    """A source whose row is (its name, the index, a random number)."""

    name: str
    size: int

    def __len__(self) -> int:
        return self.size

    def row(self, index: int, rng: np.random.Generator) -> Any:
        return self.name, index, float(rng.random())


def stream(length: int = 60, seed: int = 0) -> MixtureStream:
    return MixtureStream([Weighted(Echo("a", 5), 2), Weighted(Echo("b", 100), 1)], length, seed)


def test_each_cycle_holds_the_sources_in_their_proportions() -> None:
    names = [stream()[item]["row"][0] for item in range(60)]
    assert names == ["a", "a", "b"] * 20
    assert stream().cycle_length == 3
    assert len(stream()) == 60


def test_every_epoch_is_a_fresh_permutation_of_a_source() -> None:
    items = [stream()[item] for item in range(60)]
    indices = [item["row"][1] for item in items if item["row"][0] == "a"]
    epochs = [indices[start : start + 5] for start in range(0, 40, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 4
    others = [item["row"][1] for item in items if item["row"][0] == "b"]
    assert len(set(others)) == 20


def test_an_item_depends_on_its_number_and_the_seed_alone() -> None:
    whole = [stream()[item] for item in range(60)]
    longer = stream(length=90)
    for item in reversed(range(60)):  # any order, a fresh or a used stream
        assert stream()[item] == longer[item] == whole[item]
    other = [stream(seed=1)[item] for item in range(60)]
    assert sum(a["row"] == b["row"] for a, b in zip(whole, other, strict=True)) == 0


def test_keys_and_random_choices_differ_between_items_and_epochs() -> None:
    items = [stream(6000)[item] for item in range(600)]
    assert len({item["key"] for item in items}) == 600
    assert len({item["row"][2] for item in items}) == 600
    assert [item["stream_position"] for item in items] == list(range(600))
    repeats = Counter(item["row"][:2] for item in items)
    assert repeats["a", 0] == 80


@pytest.mark.parametrize("item", [-1, 60])
def test_items_outside_the_stream_are_refused(item: int) -> None:
    with pytest.raises(IndexError, match="a stream of 60"):
        stream()[item]


def test_empty_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="needs sources, length >= 1"):
        MixtureStream([], 3, 0)
    with pytest.raises(ValueError, match="needs sources, length >= 1"):
        stream(length=0)
    with pytest.raises(ValueError, match="'a' needs per_cycle >= 1"):
        Weighted(Echo("a", 0), 1)
    with pytest.raises(ValueError, match="per_cycle=0"):
        Weighted(Echo("a", 1), 0)
