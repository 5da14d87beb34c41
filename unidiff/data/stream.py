"""An endless, counter-based mixture of training sources.

Item i of the stream is decided by (seed, i) alone: which source, which sample, which epoch, which
random choices. So a run can resume at any item, on any number of ranks, and see what it would have
seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset

from unidiff.diffusion.random import hash_integers

from .blocks import TrainingRow


class Source(Protocol):
    """Training samples of one task."""

    @property
    def name(self) -> str:
        """Name of the task in the mixture."""
        ...

    def __len__(self) -> int:
        """Number of samples in one epoch."""
        ...

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Training row of sample `index`; every choice comes from `rng`."""
        ...


@dataclass(frozen=True)
class Weighted:
    """A source and how many items of each cycle of the stream it gives."""

    source: Source
    per_cycle: int

    def __post_init__(self) -> None:
        """Check that there is something to draw."""
        if self.per_cycle < 1 or len(self.source) < 1:
            raise ValueError(
                f"source {self.source.name!r} needs per_cycle >= 1 and samples, got "
                f"per_cycle={self.per_cycle} and {len(self.source)} samples"
            )


class MixtureStream(Dataset):
    """Map-style data set of `length` items over weighted sources.

    Each source is read in a fresh permutation every epoch. A cycle holds the sources one after the
    other: with one cycle an optimiser step, micro-batches hold samples of like length and every
    step the mixture in its proportions.
    """

    def __init__(self, sources: Sequence[Weighted], length: int, seed: int, first: int = 0) -> None:
        """Items `first` to `first + length - 1` of the endless stream.

        Raises:
            ValueError: if there is no source, the length is below 1 or `first` is negative.
        """
        if not sources or length < 1 or first < 0:
            raise ValueError(
                "a stream needs sources, length >= 1 and first >= 0, got "
                f"{len(sources)} sources, length={length}, first={first}"
            )
        self.first = first
        self.sources = list(sources)
        self.length = length
        self.seed = seed
        self._slots = [i for i, weighted in enumerate(sources) for _ in range(weighted.per_cycle)]
        self._ranks = [self._slots[:i].count(slot) for i, slot in enumerate(self._slots)]
        self._permutations: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        """Number of items."""
        return self.length

    @property
    def cycle_length(self) -> int:
        """Items after which the mixture repeats."""
        return len(self._slots)

    def locate(self, item: int) -> tuple[int, int, int]:
        """(source number, sample index, epoch) of an item."""
        cycle, slot = divmod(item, len(self._slots))
        number = self._slots[slot]
        weighted = self.sources[number]
        count = cycle * weighted.per_cycle + self._ranks[slot]
        epoch, place = divmod(count, len(weighted.source))
        return number, int(self._permutation(number, epoch)[place]), epoch

    def _permutation(self, number: int, epoch: int) -> np.ndarray:
        """Order of a source's samples in one epoch; only the latest two are kept."""
        if (number, epoch) not in self._permutations:
            self._permutations.pop((number, epoch - 2), None)
            rng = np.random.default_rng([self.seed, number, epoch])
            self._permutations[number, epoch] = rng.permutation(len(self.sources[number].source))
        return self._permutations[number, epoch]

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Sample for the collator; raises IndexError behind the end."""
        if not 0 <= item < self.length:
            raise IndexError(f"item {item} of a stream of {self.length}")
        item += self.first
        number, index, epoch = self.locate(item)
        key = int(hash_integers(self.seed, number, index, epoch))
        rng = np.random.Generator(np.random.Philox(key=key % 2**64))
        row = self.sources[number].source.row(index, rng)
        return {"row": row, "key": key, "stream_position": item}
