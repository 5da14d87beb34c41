"""Sequences of examples that are made when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from unidiff.plugins import Example

SPLITS = ("train", "test")


class MadeExamples(Sequence[Example]):
    """Examples 0 to N - 1, each made anew from its number; slices are lists."""

    def __init__(self, number: int, make: Callable[[int], Example]) -> None:
        """Sequence of `number` examples; `make` gives the same for the same index."""
        self._number = number
        self._make = make

    def __len__(self) -> int:
        """How many."""
        return self._number

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Any:
        """One example, or a list of them; raises IndexError beyond the end."""
        if isinstance(index, slice):
            return [self._make(one) for one in range(self._number)[index]]
        return self._make(range(self._number)[index])

    def __iter__(self) -> Iterator[Example]:
        """All examples in order."""
        return (self._make(index) for index in range(self._number))


def check_split(split: str) -> None:
    """Raise ValueError unless the split is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
