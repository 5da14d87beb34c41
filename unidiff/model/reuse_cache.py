"""What approximate reuse remembers of each row's canvas between probes, stale or not.

Everything is one tensor per name with the rows first, so that rows can leave a batch, come back in
another order, or meet a wider canvas. Nothing here outlives the decoding it was made for.
"""

# Shapes: B rows, W canvas, H heads, G key-value heads, E head dim, D width.

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unidiff.generation.denoiser import Run

from .reuse_rules import Situation

if TYPE_CHECKING:
    from .modeling import UniDiffModel

NO_ID = -1


class ReuseCache:
    """Keys, values and what else a kind keeps, for every token of every row's canvas.

    Attributes:
        token_ids: empty lists; nothing is ever committed under full attention.
        positions: empty arrays, likewise.
        tail: empty lists, likewise.
        adapters: None for each row: rows of several adapters are refused.
        soft: (N, D) features of each row's pictures, at its soft positions in order; None: no
            picture.
        ids_BW: (B, W) int64, ids at each row's last probe, `NO_ID` before it.
        asked_BW: (B, W) bool, positions asked for at it.
        step_B: (B,) int64, probes of each row so far.
        start_B: (B,) int64, first position of the row's open block.
        stop_B: (B,) int64, behind its last one.
        num_prompt_B: (B,) int64, tokens before the first position ever asked for.
    """

    def __init__(self, num_rows: int, device: torch.device | str = "cpu") -> None:
        """Rows of which nothing is known."""
        self.token_ids: list[list[int]] = [[] for _ in range(num_rows)]
        self.positions = [np.zeros((3, 0), dtype=np.int64) for _ in range(num_rows)]
        self.tail: list[list[int]] = [[] for _ in range(num_rows)]
        self.adapters: list[str | None] = [None] * num_rows
        self.soft: list[Tensor | None] = [None] * num_rows
        count_B = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.ids_BW = torch.zeros(num_rows, 0, dtype=torch.int64, device=device)
        self.asked_BW = self.ids_BW.bool()
        self.step_B, self.start_B, self.stop_B, self.num_prompt_B = (
            count_B,
            count_B.clone(),
            count_B.clone(),
            count_B.clone(),
        )
        self.key_mask: Tensor | None = None  # (B, 1, 1, W) bool; None: every token is real
        self._wide: dict[str, Tensor] = {}  # name -> (B, W, ...) features of every token
        self._rows: dict[str, Tensor] = {}  # name -> (B, ...) other memory of a kind
        self._position_3BW: Tensor | None = None
        self._rotation: tuple[Tensor, Tensor] | None = None

    @property
    def num_rows(self) -> int:
        """Rows in the batch."""
        return len(self.token_ids)

    @property
    def width(self) -> int:
        """Columns of the canvas at the last probe."""
        return self.ids_BW.shape[1]

    def observe(self, canvas: Run, asked_BW: Tensor, mask_token_id: int) -> Situation:
        """What a probe shows, beside what the last one showed; remembers the probe."""
        self._resize(canvas.ids_BT.shape[1])
        ids_BW, offset_W = canvas.ids_BT, torch.arange(self.width, device=asked_BW.device)
        real_BW = offset_W < canvas.length_B[:, None]
        is_new_B = self.step_B == 0
        # A masked position that was closed a step before is a new block; a remasked one was not
        # masked then.
        opened_BW = asked_BW & ~self.asked_BW & (self.ids_BW == mask_token_id)
        opens_B = is_new_B | opened_BW.any(1)
        first_B = asked_BW.int().argmax(1)
        last_B = torch.where(asked_BW, offset_W, -1).amax(1)
        self.start_B = torch.where(opens_B, first_B, self.start_B)
        self.stop_B = torch.where(opens_B, last_B + 1, self.stop_B)
        self.num_prompt_B = torch.where(is_new_B, first_B, self.num_prompt_B)
        now = Situation(
            real_BW=real_BW,
            asked_BW=asked_BW,
            masked_BW=ids_BW == mask_token_id,
            changed_BW=ids_BW != self.ids_BW,
            prompt_BW=offset_W < self.num_prompt_B[:, None],
            start_B=self.start_B,
            stop_B=self.stop_B,
            opens_B=opens_B,
            step_B=self.step_B,
        )
        self.key_mask = None if bool(real_BW.all()) else real_BW[:, None, None, :]
        self.ids_BW, self.asked_BW = ids_BW.clone(), asked_BW.clone()
        self.step_B = self.step_B + (canvas.length_B > 0)
        return now

    def rotation(self, network: "UniDiffModel", position_3BW: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every token, each (B * W, 1, E); kept while the positions stay."""
        known = self._position_3BW
        if self._rotation is None or known is None or not torch.equal(known, position_3BW):
            dtype = network.embed_tokens.weight.dtype
            cosine, sine = network.rotary(position_3BW, dtype)  # (B, 1, W, E)
            size = (position_3BW[0].numel(), 1, cosine.shape[-1])
            self._rotation = cosine.reshape(size), sine.reshape(size)
            self._position_3BW = position_3BW.clone()
        return self._rotation

    def feature(self, name: str, *shape: int, like: Tensor) -> Tensor:
        """(B * W, *shape) features of every token, a view to be written to; zeros at first."""
        if name not in self._wide:
            self._wide[name] = like.new_zeros(self.num_rows, self.width, *shape)
        return self._wide[name].view(-1, *shape)

    def memory(self, name: str) -> Tensor | None:
        """(B, ...) tensor remembered under a name, if any."""
        return self._rows.get(name)

    def remember(self, name: str, value_B: Tensor) -> None:
        """Keep a (B, ...) tensor under a name; its last axis is the canvas where it has two."""
        self._rows[name] = value_B

    def select_rows(self, rows: Sequence[int]) -> "ReuseCache":
        """A cache that holds copies of the given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.ids_BW.device)
        chosen = ReuseCache(len(index), self.ids_BW.device)
        chosen.soft = [self.soft[row] for row in rows]
        for name in ("ids_BW", "asked_BW", "step_B", "start_B", "stop_B", "num_prompt_B"):
            setattr(chosen, name, getattr(self, name)[index])
        chosen._wide = {name: value[index] for name, value in self._wide.items()}
        chosen._rows = {name: value[index] for name, value in self._rows.items()}
        return chosen

    @classmethod
    def concatenate(cls, caches: Sequence["ReuseCache"]) -> "ReuseCache":
        """A cache with the rows of several, in order; what one of them lacks is zero.

        Raises:
            ValueError: if no cache is given.
        """
        if not caches:
            raise ValueError("concatenate needs one or more caches, got none")
        num_rows, width = sum(c.num_rows for c in caches), max(c.width for c in caches)
        joined = cls(num_rows, caches[0].ids_BW.device)
        joined.soft = [one for cache in caches for one in cache.soft]
        copies = [cache.select_rows(range(cache.num_rows)) for cache in caches]
        for copy in copies:
            copy._resize(width)
        for name in ("ids_BW", "asked_BW", "step_B", "start_B", "stop_B", "num_prompt_B"):
            setattr(joined, name, torch.cat([getattr(copy, name) for copy in copies]))
        joined._wide = _stacked(copies, [copy._wide for copy in copies])
        joined._rows = _stacked(copies, [copy._rows for copy in copies])
        return joined

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget everything: the next probe computes every token.

        Raises:
            ValueError: if a length is not zero, for nothing was committed.
        """
        if any(lengths):
            raise ValueError(f"nothing is committed under full attention, cannot keep {lengths}")
        self.step_B = torch.zeros_like(self.step_B)

    def _resize(self, width: int) -> None:
        """Cut what is kept to `width` columns, or widen it; the rows' own tokens stay."""
        if width == self.width:
            return
        self.ids_BW = _with_columns(self.ids_BW, width, NO_ID)
        self.asked_BW = _with_columns(self.asked_BW, width, 0)
        self._wide = {name: _with_columns(value, width, 0) for name, value in self._wide.items()}
        for name, value in self._rows.items():
            if value.ndim == 2:
                self._rows[name] = _with_columns(value, width, 0)


def _with_columns(values: Tensor, width: int, fill: int) -> Tensor:
    """(B, width, ...) contiguous tensor with the first columns of `values`, then `fill`."""
    kept = values[:, :width]
    missing = values.new_full((len(values), width - kept.shape[1], *values.shape[2:]), fill)
    return torch.cat([kept, missing], dim=1)


def _stacked(caches: Sequence[ReuseCache], parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of all caches' rows by name, zeros for a cache that has none of a name."""
    stacked = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        like = next(part[name] for part in parts if name in part)
        stacked[name] = torch.cat(
            [
                part[name] if name in part else like.new_zeros(cache.num_rows, *like.shape[1:])
                for cache, part in zip(caches, parts, strict=True)
            ]
        )
    return stacked
