"""One id space for every modality: which ids are text, image codes, action bins and state bins.

Knows ids, ranges and grids; knows nothing of strings, pixels or models. Ids are contiguous per
modality, a modality's own tokenizer speaks in codes that start at 0, and this module moves between
the two. Four modalities have fixed names and places; a layout may hold further ones behind them.
"""

# Shapes: B batch, L sequence.

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

MODALITIES = ("text", "image", "action", "state")  # of every layout; further ones follow
MODALITY_IDS = {name: index for index, name in enumerate(MODALITIES)}
CANVAS_PADDING = -1  # in canvas_modality_ids: no position
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NO_MODALITIES = frozenset({"uncond", "type", "codes"})  # what a content part says otherwise


@dataclass(frozen=True)
class IdRange:
    """The ids `start` to `stop - 1` of one modality."""

    start: int
    size: int

    def __post_init__(self) -> None:
        """Reject a negative start and an empty range."""
        if self.start < 0 or self.size < 1:
            raise ValueError(
                f"an id range needs start >= 0 and size >= 1, got start={self.start}, "
                f"size={self.size}"
            )

    @property
    def stop(self) -> int:
        """First id after the range."""
        return self.start + self.size


@dataclass(frozen=True)
class TokenLayout:
    """The named id ranges of a checkpoint, its special ids and its default grids.

    Attributes:
        ranges: id range of each modality the checkpoint knows; ranges may overlap padding rows.
        mask_token_id: id that stands for "not known yet"; it is never emitted.
        pad_token_id: id behind a row's last real token.
        end_token_ids: ids that end a response.
        reserved_token_ids: ids inside the text range that a text canvas may never contain.
        image_grid: (rows, columns) of one image's codes.
        action_grid: (timesteps, dimensions) of one action chunk.
        grids: (rows, columns) of one value of a further modality; one that is absent is a line of
            any length, like a state.
        delimiters: ids of the opening and the closing token of each further modality. They lie in
            no range, count as text, and no canvas may contain them. Others' checkpoints have some
            for pictures too, among the ids of text, or for texts, around the whole of one.
        closes_canvas: whether a canvas ends with the closing token of what is in it, where
            everything attends to everything and was trained so.
        canvas_end_token_id: id behind that closing token, as of the end of an answer; it counts as
            text. None: nothing follows it.
        opens_canvas: whether it begins with the opening token too, which then sees what is in it.
        prefix_end_token_id: id up to the first of which the tokens of a prompt see each other, as
            behind a picture that is asked about; None: no prompt has such a beginning.
        row_end_token_id: id behind each row of a picture's codes, which counts as text and is known
            in a canvas; None: rows follow each other.
        is_straight: whether a token stands one position behind the one before it whatever it is, as
            in checkpoints that know no grids.
        has_bare_pictures: whether pictures stand without delimiters, at positions of their own:
            rows and columns from 0, at the time -1 for the first picture, -2 for the second, ...; a
            text goes on behind one by its place in the sequence.
        expand_token_id: id by which a position of a text canvas asks for a second one beside it;
            None: canvases keep their length.
        delete_token_id: id by which such a position leaves; there are both or none.
        soft_token_id: id of a prompt position that stands for a feature of a picture in place of
            its own embedding (`soft_prompts.py`); it counts as text and no canvas may contain it.
    """

    ranges: Mapping[str, IdRange]
    mask_token_id: int
    pad_token_id: int
    end_token_ids: tuple[int, ...]
    reserved_token_ids: tuple[int, ...] = ()
    image_grid: tuple[int, int] = (8, 8)
    action_grid: tuple[int, int] = (8, 2)
    grids: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    delimiters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    closes_canvas: bool = False
    canvas_end_token_id: int | None = None
    opens_canvas: bool = False
    prefix_end_token_id: int | None = None
    row_end_token_id: int | None = None
    is_straight: bool = False
    has_bare_pictures: bool = False
    expand_token_id: int | None = None
    delete_token_id: int | None = None
    soft_token_id: int | None = None
    _allowed: dict[tuple[str, int], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _forbidden: dict[tuple[str, int, int], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check that a text range exists and that further modalities are described in full."""
        if "text" not in self.ranges:
            raise ValueError("a layout needs a 'text' range: special tokens live there")
        if (self.expand_token_id is None) != (self.delete_token_id is None):
            raise ValueError(
                f"a layout has both or none of expand_token_id and delete_token_id, got "
                f"{self.expand_token_id} and {self.delete_token_id}"
            )
        further = set(self.ranges) - set(MODALITIES)
        if (
            not further <= set(self.delimiters) <= set(self.ranges)
            or not set(self.grids) <= further
        ):
            raise ValueError(
                f"each modality besides {MODALITIES} needs delimiters and may have a grid, and a "
                "modality that is not there has neither: the "
                f"ranges have {sorted(further)}, the delimiters {sorted(self.delimiters)} and the "
                f"grids {sorted(self.grids)}"
            )
        for name in further:
            self._check_further(name)

    def _check_further(self, name: str) -> None:
        """Raise ValueError if a further modality's name, ids or grid cannot be used."""
        if not _NAME.fullmatch(name) or name in _NO_MODALITIES:
            raise ValueError(
                "a modality's name must be lower case letters, digits and underscores and none of "
                f"{sorted(_NO_MODALITIES)}, got {name!r}"
            )
        own = self.ranges[name]
        if not isinstance(own.size, int):
            raise ValueError(f"the number of codes of {name!r} must be an int, got {own.size!r}")
        for other, ids in self.ranges.items():
            if other != name and own.start < ids.stop and ids.start < own.stop:
                raise ValueError(f"the ids of {name!r} overlap those of {other!r}")
        others = [i for pair in self.delimiters.values() for i in pair] + [self.mask_token_id]
        for i in self.delimiters[name]:
            if i < 0 or any(r.start <= i < r.stop for r in self.ranges.values()):
                raise ValueError(f"delimiter {i} of {name!r} must lie in no modality's range")
            if others.count(i) > 1:
                raise ValueError(f"delimiter {i} of {name!r} is used twice")
        grid = self.grids.get(name, (1, 1))
        if len(grid) != 2 or not all(isinstance(side, int) and side >= 1 for side in grid):
            raise ValueError(
                f"the grid of {name!r} must be (rows, columns), at least one row and one column, "
                f"got {grid}"
            )

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Names by index: the four fixed ones, then further ones in the order of their ids."""
        further = set(self.ranges) - set(MODALITIES)
        return (*MODALITIES, *sorted(further, key=lambda name: self.ranges[name].start))

    def modality_id(self, modality: str) -> int:
        """Index of a modality; raises ValueError if there is none of that name."""
        if modality not in self.modalities:
            raise ValueError(f"unknown modality {modality!r}; this layout has {self.modalities}")
        return self.modalities.index(modality)

    @property
    def num_ids(self) -> int:
        """Smallest vocabulary that holds every range and special id."""
        stops = [id_range.stop for id_range in self.ranges.values()]
        stops += [max(pair) + 1 for pair in self.delimiters.values()]
        soft = [] if self.soft_token_id is None else [self.soft_token_id + 1]
        return max([*stops, *soft, self.mask_token_id + 1, self.pad_token_id + 1])

    def holds(self, other: "TokenLayout") -> bool:
        """Whether every modality of another layout is in this one, with the same ids and grid."""
        return all(
            self.ranges.get(name) == ids
            and self.delimiters.get(name) == other.delimiters.get(name)
            and self.grid_of(name) == other.grid_of(name)
            for name, ids in other.ranges.items()
        )

    def range_of(self, modality: str) -> IdRange:
        """Id range of a modality; raises ValueError if the checkpoint has none."""
        if modality not in self.ranges:
            raise ValueError(
                f"this checkpoint has no {modality!r} tokens; it has {sorted(self.ranges)}. "
                "Load a checkpoint that was trained with that modality; one of others that was "
                "needs image_tokenizer=... in UniDiffProcessor.from_pretrained, or "
                "--image-tokenizer in unidiff convert, for pictures."
            )
        return self.ranges[modality]

    def grid_of(self, modality: str) -> tuple[int, int] | None:
        """(rows, columns) of a modality laid out as a grid, None for a line of tokens."""
        fixed = {"image": self.image_grid, "action": self.action_grid}
        return fixed.get(modality) or self.grids.get(modality)

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that are no content of a text: reserved ones, ends, delimiters and row ends."""
        pairs = (i for pair in self.delimiters.values() for i in pair)
        row_end = [] if self.row_end_token_id is None else [self.row_end_token_id]
        return (*self.reserved_token_ids, *self.end_token_ids, *pairs, *row_end)

    @cached_property
    def delimiter_names(self) -> dict[int, str]:
        """How the delimiters of further modalities are spelled, by id."""
        pairs = [(name, pair) for name, pair in self.delimiters.items() if name not in MODALITIES]
        return {
            i: text
            for name, (opening, closing) in pairs
            for i, text in ((opening, f"<|{name}|>"), (closing, f"<|/{name}|>"))
        }

    def extended(
        self, modality: str, num_codes: int, grid: tuple[int, int] | None = None
    ) -> "TokenLayout":
        """The layout with one modality more: its delimiters and codes follow the last id.

        Args:
            modality: a new name, lower case.
            num_codes: size of its codebook.
            grid: (rows, columns) of one value; None for a line of any length.

        Raises:
            ValueError: if there is a modality of that name, or the name or a size is not valid.
        """
        if modality in self.modalities:
            raise ValueError(f"this layout has a modality {modality!r}: choose another name")
        first = self.num_ids
        grids: dict[str, Any] = dict(self.grids)
        if grid is not None:
            grids[modality] = tuple(grid)
        return replace(
            self,
            ranges={**self.ranges, modality: IdRange(first + 2, num_codes)},
            delimiters={**self.delimiters, modality: (first, first + 1)},
            grids=grids,
        )

    def encode(self, modality: str, codes: np.ndarray) -> np.ndarray:
        """Ids of a modality's codes.

        Args:
            modality: one of `modalities`.
            codes: int array of any shape, each in [0, size of the range).

        Returns:
            int64 array of the same shape.

        Raises:
            ValueError: if a code lies outside the modality's range.
        """
        id_range = self.range_of(modality)
        codes = np.asarray(codes, dtype=np.int64)
        if codes.size and (codes.min() < 0 or codes.max() >= id_range.size):
            raise ValueError(
                f"{modality} codes must lie in [0, {id_range.size}), got "
                f"[{codes.min()}, {codes.max()}]: were they made by another tokenizer?"
            )
        return codes + id_range.start

    def decode(self, modality: str, ids: np.ndarray) -> np.ndarray:
        """Codes of a modality's ids; ids outside its range are clamped to the nearest code.

        Args:
            modality: one of `modalities`.
            ids: int array of any shape.

        Returns:
            int64 array of the same shape, each in [0, size of the range).
        """
        id_range = self.range_of(modality)
        return np.clip(np.asarray(ids, dtype=np.int64) - id_range.start, 0, id_range.size - 1)

    def modality_ids(self, ids_L: np.ndarray) -> np.ndarray:
        """(L,) modality index of each id: the range it lies in, text where none claims it."""
        ids_L = np.asarray(ids_L, dtype=np.int64)
        modality_L = np.full(ids_L.shape, MODALITY_IDS["text"], dtype=np.int64)
        for name, id_range in self.ranges.items():
            if name != "text":
                inside = (ids_L >= id_range.start) & (ids_L < id_range.stop)
                modality_L[inside] = self.modality_id(name)
        return modality_L

    def allowed_ids(self, modality: str, vocab_size: int) -> Tensor:
        """(vocab_size,) bool, True at ids that a canvas position of this modality may take.

        The mask id and, for text, every reserved special id are excluded. The tensor is shared
        between calls: do not write to it.
        """
        key = (modality, vocab_size)
        if key not in self._allowed:
            id_range = self.range_of(modality)
            allowed = torch.zeros(vocab_size, dtype=torch.bool)
            allowed[id_range.start : id_range.stop] = True
            blocked = [self.mask_token_id]
            if modality == "text":
                blocked += self.reserved_token_ids
                blocked += [] if self.soft_token_id is None else [self.soft_token_id]
            allowed[[i for i in blocked if i < vocab_size]] = False
            self._allowed[key] = allowed
        return self._allowed[key]

    def forbidden_columns(self, modality: str, first: int, stop: int) -> Tensor:
        """(n,) int64, ids in [first, stop) that such a position may not take, less `first`.

        The tensor is shared between calls: do not write to it.
        """
        key = (modality, first, stop)
        if key not in self._forbidden:
            allowed = self.allowed_ids(modality, stop)[first:]
            self._forbidden[key] = torch.nonzero(~allowed)[:, 0]
        return self._forbidden[key]

    def prefix_length(self, ids: Sequence[int]) -> int:
        """How many leading ones of a prompt's ids see each other; 0 for an ordinary prompt."""
        end = self.prefix_end_token_id
        return list(ids).index(end) + 1 if end is not None and end in ids else 0

    def check_ids(self, ids: Tensor, vocab_size: int) -> None:
        """Raise ValueError if an id lies outside [0, vocab_size)."""
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= vocab_size):
            raise ValueError(
                f"token ids must lie in [0, {vocab_size}), got "
                f"[{int(ids.min())}, {int(ids.max())}]: use the processor of this checkpoint"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for `config.json`; keys of `_FURTHER_KEYS` only where they say more."""
        further = {"grids": self.grids, "delimiters": self.delimiters}
        plain = {key: getattr(self, key) for key in _ID_KEYS}
        plain |= {key: getattr(self, key) or None for key in _FLAG_KEYS}
        return {
            "ranges": {name: [r.start, r.size] for name, r in self.ranges.items()},
            "mask_token_id": self.mask_token_id,
            "pad_token_id": self.pad_token_id,
            "end_token_ids": list(self.end_token_ids),
            "reserved_token_ids": list(self.reserved_token_ids),
            "image_grid": list(self.image_grid),
            "action_grid": list(self.action_grid),
            **{key: _lists(pairs) for key, pairs in further.items() if pairs},
            **{key: value for key, value in plain.items() if value is not None},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TokenLayout":
        """Layout from `to_dict`'s dictionary; raises ValueError naming a missing or unknown key."""
        if set(values) - _FURTHER_KEYS != _KEYS:
            raise ValueError(
                f"token layout needs exactly the keys {sorted(_KEYS)} and may have "
                f"{sorted(_FURTHER_KEYS)}, got {sorted(values)}"
            )
        fields: dict[str, Any] = {key: tuple(values[key]) for key in _LISTS}
        for key in _PAIR_KEYS:
            fields[key] = {name: tuple(pair) for name, pair in values.get(key, {}).items()}
        return cls(
            ranges={name: IdRange(*pair) for name, pair in values["ranges"].items()},
            mask_token_id=values["mask_token_id"],
            pad_token_id=values["pad_token_id"],
            **fields,
            **{key: values[key] for key in (*_ID_KEYS, *_FLAG_KEYS) if key in values},
        )


_LISTS = ("end_token_ids", "reserved_token_ids", "image_grid", "action_grid")
_KEYS = {"ranges", "mask_token_id", "pad_token_id", *_LISTS}
_PAIR_KEYS = ("grids", "delimiters")
_ID_KEYS = (
    "row_end_token_id",
    "canvas_end_token_id",
    "prefix_end_token_id",
    "expand_token_id",
    "delete_token_id",
    "soft_token_id",
)
_FLAG_KEYS = ("closes_canvas", "opens_canvas", "is_straight", "has_bare_pictures")
_FURTHER_KEYS = {*_PAIR_KEYS, *_ID_KEYS, *_FLAG_KEYS}


def _lists(pairs: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    """Pairs by name, as JSON writes them."""
    return {name: list(pair) for name, pair in pairs.items()}


def contiguous_layout(
    sizes: Mapping[str, int], reserved_token_ids: tuple[int, ...] = (), **specials: Any
) -> TokenLayout:
    """Layout whose modalities follow each other in the order given, starting at id 0.

    Args:
        sizes: number of codes of each modality, text first.
        reserved_token_ids: see `TokenLayout`.
        specials: the remaining fields of `TokenLayout`.
    """
    ranges = {}
    start = 0
    for name, size in sizes.items():
        ranges[name] = IdRange(start, size)
        start += size
    return TokenLayout(ranges=ranges, reserved_token_ids=reserved_token_ids, **specials)
