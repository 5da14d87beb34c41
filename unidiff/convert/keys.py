"""Names of tensors in other people's checkpoints and in ours, read in both directions.

A family's names are a list of rules. `{n}` in a name stands for a number, the same on both sides:

    Renamed("model.transformer.blocks.{n}.ff_proj.weight", "model.layers.{n}.mlp.gate_proj.weight")

Knows names and shapes; knows nothing of configurations.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .tensors import DerivedTensor, LazyTensor

_NUMBER = re.compile(r"\\\{(\w+)\\\}")
Tensors = Mapping[str, LazyTensor]


class Rule(Protocol):
    """How some tensors are named, and perhaps cut, in both formats."""

    def forwards(self, theirs: Tensors) -> "Conversion":
        """Ours made of theirs."""

    def backwards(self, ours: Tensors) -> "Conversion":
        """Theirs made of ours."""


@dataclass(frozen=True)
class Conversion:
    """What a rule made.

    Attributes:
        made: name -> tensor.
        used: names that went into it.
    """

    made: dict[str, LazyTensor]
    used: frozenset[str]


@dataclass(frozen=True)
class Renamed:
    """A tensor that has another name, or the same one."""

    theirs: str
    ours: str

    def forwards(self, theirs: Tensors) -> Conversion:
        """Ours made of theirs."""
        return _renamed(theirs, self.theirs, self.ours)

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours."""
        return _renamed(ours, self.ours, self.theirs)


@dataclass(frozen=True)
class Grown:
    """A table of the same name with more rows in ours: the mean of theirs.

    Attributes:
        name: in both.
        theirs: rows there.
        ours: rows here, as many or more.
    """

    name: str
    theirs: int
    ours: int

    def forwards(self, theirs: Tensors) -> Conversion:
        """Ours made of theirs."""
        return self._resized(theirs, self.ours, _grow(self.ours))

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours."""
        return self._resized(ours, self.theirs, _rows(0, self.theirs))

    def _resized(
        self, tensors: Tensors, rows: int, resize: Callable[[Tensor], Tensor]
    ) -> Conversion:
        if self.theirs == self.ours:
            return _renamed(tensors, self.name, self.name)
        if self.name not in tensors:
            return Conversion({}, frozenset())
        table = tensors[self.name]
        made = DerivedTensor((table,), resize, (rows, *table.shape[1:]), table.dtype)
        return Conversion({self.name: made}, frozenset([self.name]))


@dataclass(frozen=True)
class Stacked:
    """A tensor that is several of ours, one below the other.

    Attributes:
        theirs: its name.
        ours: names of the parts, from top to bottom.
        rows: of each part.
    """

    theirs: str
    ours: tuple[str, ...]
    rows: tuple[int, ...]

    def forwards(self, theirs: Tensors) -> Conversion:
        """Ours made of theirs.

        Raises:
            ValueError: if theirs has another number of rows.
        """
        made: dict[str, LazyTensor] = {}
        matches = _matches(theirs, self.theirs)
        for name, numbers in matches:
            whole, start = theirs[name], 0
            if whole.shape[0] != sum(self.rows):
                raise ValueError(
                    f"{name} has {whole.shape[0]} rows, and by config.json {sum(self.rows)}"
                )
            for part, rows in zip(self.ours, self.rows, strict=True):
                shape = (rows, *whole.shape[1:])
                cut = DerivedTensor((whole,), _rows(start, start + rows), shape, whole.dtype)
                made[part.format(**numbers)] = cut
                start += rows
        return Conversion(made, frozenset(name for name, _ in matches))

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours."""
        made: dict[str, LazyTensor] = {}
        used: set[str] = set()
        for _, numbers in _matches(ours, self.ours[0]):
            names = [part.format(**numbers) for part in self.ours]
            if set(names) <= set(ours):
                parts = tuple(ours[name] for name in names)
                shape = (sum(self.rows), *parts[0].shape[1:])
                whole = DerivedTensor(parts, _stack, shape, parts[0].dtype)
                made[self.theirs.format(**numbers)] = whole
                used |= set(names)
        return Conversion(made, frozenset(used))


@dataclass(frozen=True)
class Unread:
    """A tensor that the model has no place for, such as frequencies that follow from the sizes."""

    theirs: str

    def forwards(self, theirs: Tensors) -> Conversion:
        """Nothing of ours."""
        return Conversion({}, frozenset(name for name, _ in _matches(theirs, self.theirs)))

    def backwards(self, ours: Tensors) -> Conversion:
        """Nothing of theirs: `convert_checkpoint` keeps it as it was."""
        del ours
        return Conversion({}, frozenset())


def converted(
    tensors: Tensors, rules: Iterable[Rule], *, backwards: bool = False
) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
    """Every tensor in the other format, and the names that no rule knows."""
    made: dict[str, LazyTensor] = {}
    left = set(tensors)
    for rule in rules:
        conversion = rule.backwards(tensors) if backwards else rule.forwards(tensors)
        made |= conversion.made
        left -= conversion.used
    return made, tuple(sorted(left))


def _matches(tensors: Iterable[str], template: str) -> list[tuple[str, dict[str, str]]]:
    """(name, numbers) of the names that a template describes."""
    pattern = re.compile(_NUMBER.sub(r"(?P<\1>\\d+)", re.escape(template)))
    found = ((name, pattern.fullmatch(name)) for name in tensors)
    return [(name, match.groupdict()) for name, match in found if match is not None]


def _renamed(tensors: Tensors, source: str, target: str) -> Conversion:
    """The tensors that one template describes, under the names of the other."""
    matches = _matches(tensors, source)
    made = {target.format(**numbers): tensors[name] for name, numbers in matches}
    return Conversion(made, frozenset(name for name, _ in matches))


def _rows(start: int, stop: int) -> Callable[[Tensor], Tensor]:
    """Cuts rows out; in memory of their own, for the whole is let go."""
    return lambda whole: whole[start:stop].clone()


def _stack(*parts: Tensor) -> Tensor:
    """Tensors one below the other."""
    return torch.cat(parts)


def _grow(rows: int) -> Callable[[Tensor], Tensor]:
    """Adds rows that are the mean of those that are there."""

    def grow(table: Tensor) -> Tensor:
        mean = table.float().mean(0, keepdim=True).to(table.dtype)
        return torch.cat([table, mean.expand(rows - len(table), -1)])

    return grow
