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

from .tensors import DerivedTensor, LazyTensor, StackedTensor, rows_of

_NUMBER = re.compile(r"\\\{(\w+)\\\}")
Tensors = Mapping[str, LazyTensor]
Shape = tuple[int, ...]


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
class Linear:
    """The weight of a linear map, in ours a 1 x 1 convolution's: (out, in) and (out, in, 1, 1)."""

    theirs: str
    ours: str

    def forwards(self, theirs: Tensors) -> Conversion:
        """Ours made of theirs."""
        return self._reshaped(theirs, self.theirs, self.ours, lambda shape: (*shape, 1, 1))

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours."""
        return self._reshaped(ours, self.ours, self.theirs, lambda shape: shape[:2])

    def _reshaped(
        self, tensors: Tensors, source: str, target: str, to: Callable[[Shape], Shape]
    ) -> Conversion:
        found = _renamed(tensors, source, target)
        made: dict[str, LazyTensor] = {
            name: DerivedTensor((one,), _view(to(one.shape)), to(one.shape), one.dtype)
            for name, one in found.made.items()
        }
        return Conversion(made, found.used)


@dataclass(frozen=True)
class Fused:
    """One tensor of theirs that is several of ours, one after the other along its rows.

    Attributes:
        theirs: its name.
        ours: names of its parts.
        rows: of each part.
    """

    theirs: str
    ours: tuple[str, ...]
    rows: tuple[int, ...]

    def forwards(self, theirs: Tensors) -> Conversion:
        """Ours made of theirs; raises ValueError if there are more or fewer rows."""
        made: dict[str, LazyTensor] = {}
        matches = _matches(theirs, self.theirs)
        for name, numbers in matches:
            whole, start = theirs[name], 0
            if whole.shape[0] != sum(self.rows):
                raise ValueError(
                    f"expected {name!r} with {' + '.join(map(str, self.rows))} rows, got "
                    f"{whole.shape[0]}: config.json and weights belong to different checkpoints"
                )
            for part, rows in zip(self.ours, self.rows, strict=True):
                made[part.format(**numbers)] = rows_of(whole, start, start + rows)
                start += rows
        return Conversion(made, frozenset(name for name, _ in matches))

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours; what lacks a part is left."""
        made: dict[str, LazyTensor] = {}
        used: set[str] = set()
        for _, numbers in _matches(ours, self.ours[0]):
            names = [part.format(**numbers) for part in self.ours]
            if all(name in ours for name in names):
                parts = tuple(ours[name] for name in names)
                shape = (sum(self.rows), *parts[0].shape[1:])
                whole = DerivedTensor(parts, _concatenate, shape, parts[0].dtype)
                made[self.theirs.format(**numbers)] = whole
                used.update(names)
        return Conversion(made, frozenset(used))


@dataclass(frozen=True)
class Stacked:
    """Several tensors of theirs, numbered by `{e}`, that are one of ours with a dimension more.

    Attributes:
        theirs: their name, with `{e}`.
        ours: the name of the stack.
        number: how many there are.
    """

    theirs: str
    ours: str
    number: int

    def forwards(self, theirs: Tensors) -> Conversion:
        """Ours made of theirs; an incomplete stack is left, and one of unequal parts."""
        made: dict[str, LazyTensor] = {}
        used: set[str] = set()
        for _, numbers in _matches(theirs, self.theirs.replace("{e}", "0")):
            names = [self.theirs.format(**numbers, e=e) for e in range(self.number)]
            parts = tuple(theirs[name] for name in names if name in theirs)
            if len(parts) == self.number and len({(p.shape, p.dtype) for p in parts}) == 1:
                made[self.ours.format(**numbers)] = StackedTensor(parts)
                used.update(names)
        return Conversion(made, frozenset(used))

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours, each read without the others."""
        matches = _matches(ours, self.ours)
        made: dict[str, LazyTensor] = {}
        for name, numbers in matches:
            for e in range(self.number):
                made[self.theirs.format(**numbers, e=e)] = _one_of(ours[name], e)
        return Conversion(made, frozenset(name for name, _ in matches))


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
        if self.theirs == self.ours or self.name not in theirs:
            return _renamed(theirs, self.name, self.name)
        table = theirs[self.name]
        shape = (self.ours, *table.shape[1:])
        made = DerivedTensor((table,), _grow(self.ours), shape, table.dtype)
        return Conversion({self.name: made}, frozenset([self.name]))

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours."""
        if self.name not in ours:
            return Conversion({}, frozenset())
        made = rows_of(ours[self.name], 0, self.theirs)
        return Conversion({self.name: made}, frozenset([self.name]))


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
    """Every tensor in the other format, and the names that no rule knows.

    Raises:
        ValueError: if two rules make tensors of the same name, as where a file has both spellings
            of one.
    """
    made: dict[str, LazyTensor] = {}
    makers: dict[str, Rule] = {}
    left = set(tensors)
    for rule in rules:
        conversion = rule.backwards(tensors) if backwards else rule.forwards(tensors)
        for name, tensor in conversion.made.items():
            if made.get(name, tensor) is not tensor:
                raise ValueError(
                    f"two tensors of the weights are both {name!r}, by {makers[name]} and by "
                    f"{rule}: delete the wrong one from the weights"
                )
        made |= conversion.made
        makers |= dict.fromkeys(conversion.made, rule)
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


def _view(shape: Shape) -> Callable[[Tensor], Tensor]:
    """Gives the same numbers another shape."""
    return lambda tensor: tensor.reshape(shape)


def _grow(rows: int) -> Callable[[Tensor], Tensor]:
    """Adds rows that are the mean of those that are there."""

    def grow(table: Tensor) -> Tensor:
        mean = table.float().mean(0, keepdim=True).to(table.dtype)
        return torch.cat([table, mean.expand(rows - len(table), -1)])

    return grow


def _one_of(stack: LazyTensor, index: int) -> LazyTensor:
    """The tensor at an index of a stack."""
    row = rows_of(stack, index, index + 1)
    return DerivedTensor((row,), lambda one: one[0], stack.shape[1:], stack.dtype)


def _concatenate(*parts: Tensor) -> Tensor:
    """One tensor of several, one behind the other."""
    return torch.cat(parts)
