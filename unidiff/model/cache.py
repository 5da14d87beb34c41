"""Committed keys and values of a batch of rows, each row with its own length.

Only `commit` forwards add tokens, and only clean ones. The keys of a probe's canvas stand behind
them for the time of its forward, so that attention reads one tensor; nothing counts or copies them.
Rows are right-padded, so nothing a row sees depends on its neighbours. Knows nothing of masks,
noise or decoding choices.
"""

# Shapes: B rows, G key-value heads, S slots, Q new tokens, E head dim.

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .attention import prefers_matmul
from .placement import Placement

_SPARE = 64  # slots beyond those needed, so that a growing row does not copy its store each time


class BlockCache:
    """Keys and values per layer, with the ids and lengths they stand for.

    Attributes:
        lengths_B: (B,) int64, committed tokens of each row.
        token_ids: committed ids of each row, as lists; `generate` compares a later prompt with
            them.
        positions: (3, n) int64 array of each row, where its committed tokens stand.
        tail: generated ids of each row that are not in the cache yet, as lists.
        last_hidden_BD: (B, D) output of each row's last committed token, whose reading predicts the
            next one; None before the first commit and after `crop`.
        adapters: name of the adapter that reads each row; None: what is active.
        soft: (N, D) features of each row's pictures, at its soft positions in order; None: no
            picture.
        weights_key: fingerprint (`fingerprint.py`) of the weights that computed it; "" if unknown.
    """

    def __init__(self, num_rows: int, num_layers: int, device: torch.device | str = "cpu") -> None:
        """Empty cache for `num_rows` rows."""
        self.lengths_B = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.token_ids: list[list[int]] = [[] for _ in range(num_rows)]
        self.positions = [np.zeros((3, 0), dtype=np.int64) for _ in range(num_rows)]
        self.tail: list[list[int]] = [[] for _ in range(num_rows)]
        self.adapters: list[str | None] = [None] * num_rows
        self.soft: list[Tensor | None] = [None] * num_rows
        self.last_hidden_BD: Tensor | None = None
        self.weights_key = ""
        self._keys: list[Tensor | None] = [None] * num_layers
        self._values: list[Tensor | None] = [None] * num_layers
        self._num_slots = 0

    @property
    def num_rows(self) -> int:
        """Rows in the batch."""
        return len(self.token_ids)

    @property
    def num_slots(self) -> int:
        """Key slots that a forward sees: the longest row's committed length."""
        return self._num_slots

    @property
    def num_layers(self) -> int:
        """Layers of the model it belongs to."""
        return len(self._keys)

    def get_seq_length(self, layer_index: int = 0) -> int:
        """Committed tokens of the longest row (transformers' name for it)."""
        del layer_index
        return self.num_slots

    def read(self, layer_index: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a layer, each (B, G, S, E); None while nothing is committed."""
        key, value = self._keys[layer_index], self._values[layer_index]
        if key is None or value is None or self.num_slots == 0:
            return None
        return key[:, :, : self.num_slots], value[:, :, : self.num_slots]

    def extend(
        self, layer_index: int, key: Tensor, value: Tensor, placement: Placement
    ) -> tuple[Tensor, Tensor]:
        """Committed keys and values of a layer with new ones behind them, each (B, G, S, E).

        The new (B, G, Q, E) ones stand in slots that nothing else reads, until `advance` counts
        those of a run as committed or the next forward writes over them. No gradient flows through
        them.
        """
        needed, stored = placement.num_slots, placement.num_stored
        keys = _roomy(self._keys[layer_index], key, stored, _new_keys)
        values = _roomy(self._values[layer_index], value, stored, _new_values)
        for store, new in ((keys, key.detach()), (values, value.detach())):
            if placement.first is not None:
                store[:, :, placement.first : needed] = new
            else:
                at = placement.row_N, slice(None), placement.slot_N
                store[at] = new[placement.row_N, :, placement.token_N].to(store.dtype)
        self._keys[layer_index], self._values[layer_index] = keys, values
        return keys[:, :, :needed], values[:, :, :needed]

    def advance(
        self, new_ids: Sequence[Sequence[int]], new_positions: Sequence[np.ndarray]
    ) -> None:
        """Record the ids just written and the (3, n) positions they stand at."""
        for row, (ids, position_3N) in enumerate(zip(new_ids, new_positions, strict=True)):
            self.token_ids[row].extend(ids)
            self.positions[row] = np.concatenate([self.positions[row], position_3N], axis=1)
        added_B = torch.tensor([len(ids) for ids in new_ids], device=self.lengths_B.device)
        self.lengths_B = self.lengths_B + added_B
        self._refresh()

    def select_rows(self, rows: Sequence[int]) -> "BlockCache":
        """A cache that holds copies of the given rows, in that order."""
        chosen = BlockCache(len(rows), len(self._keys), self.lengths_B.device)
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.lengths_B.device)
        chosen.lengths_B = self.lengths_B[index]
        chosen.weights_key = self.weights_key
        chosen.token_ids = [list(self.token_ids[row]) for row in rows]
        chosen.positions = [self.positions[row] for row in rows]
        chosen.tail = [list(self.tail[row]) for row in rows]
        chosen.adapters = [self.adapters[row] for row in rows]
        chosen.soft = [self.soft[row] for row in rows]
        chosen._refresh()
        if self.last_hidden_BD is not None:
            chosen.last_hidden_BD = self.last_hidden_BD[index]
        slots = chosen.num_slots
        for layer, (key, value) in enumerate(zip(self._keys, self._values, strict=True)):
            if key is not None and value is not None:
                chosen._keys[layer] = _new_keys(key, len(rows), slots).copy_(key[index, :, :slots])
                chosen._values[layer] = value[index, :, :slots]
        return chosen

    @classmethod
    def concatenate(cls, caches: Sequence["BlockCache"]) -> "BlockCache":
        """A cache with the rows of several, in order.

        Rows without a `last_hidden_BD` get zeros: they commit before anything reads it.

        Raises:
            ValueError: if no cache is given, or they belong to models of different depth.
        """
        if not caches or len({len(cache._keys) for cache in caches}) != 1:
            raise ValueError("concatenate needs one or more caches of models of the same depth")
        joined = cls(0, len(caches[0]._keys), caches[0].lengths_B.device)
        joined.lengths_B = torch.cat([cache.lengths_B for cache in caches])
        joined.weights_key = caches[0].weights_key
        for cache in caches:
            joined.token_ids += [list(ids) for ids in cache.token_ids]
            joined.positions += cache.positions
            joined.tail += [list(ids) for ids in cache.tail]
            joined.adapters += cache.adapters
            joined.soft += cache.soft
        joined._refresh()
        joined.last_hidden_BD = _joined_hidden(caches)
        for layer in range(len(joined._keys)):
            keys = [c._keys[layer] for c in caches]
            joined._keys[layer] = _stacked(keys, caches, _new_keys)
            values = [c._values[layer] for c in caches]
            joined._values[layer] = _stacked(values, caches, _new_values)
        return joined

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget what lies behind the first `lengths[b]` tokens of each row.

        Raises:
            ValueError: if a length is negative or longer than the row.
        """
        for row, length in enumerate(lengths):
            if not 0 <= length <= len(self.token_ids[row]):
                raise ValueError(
                    f"row {row} holds {len(self.token_ids[row])} tokens, cannot keep {length}"
                )
            del self.token_ids[row][length:]
            self.positions[row] = self.positions[row][:, :length]
            self.tail[row] = []
        self.lengths_B = torch.tensor(list(lengths), device=self.lengths_B.device)
        self.last_hidden_BD = None
        self._refresh()

    def _refresh(self) -> None:
        """Recompute what follows from the lengths, without asking the device."""
        self._num_slots = max(map(len, self.token_ids), default=0)


NewStore = Callable[[Tensor, int, int], Tensor]


def _new_values(sample: Tensor, num_rows: int, capacity: int) -> Tensor:
    """(B, G, capacity, E) zeros like a (?, G, ?, E) sample."""
    return sample.new_zeros(num_rows, sample.shape[1], capacity, sample.shape[3])


def _new_keys(sample: Tensor, num_rows: int, capacity: int) -> Tensor:
    """The same, the slots innermost in memory where `matmul_attention` reads them."""
    if not prefers_matmul(sample):
        return _new_values(sample, num_rows, capacity)
    groups, dim = sample.shape[1], sample.shape[3]
    return sample.new_zeros(num_rows, groups, dim, capacity).transpose(-1, -2)


def _joined_hidden(caches: Sequence[BlockCache]) -> Tensor | None:
    """(sum B, D) readings of several caches' last tokens, zeros where there is none; None: all."""
    sample = next((c.last_hidden_BD for c in caches if c.last_hidden_BD is not None), None)
    if sample is None:
        return None
    nothing_D = sample.new_zeros(sample.shape[1])
    parts = [
        nothing_D.expand(c.num_rows, -1) if c.last_hidden_BD is None else c.last_hidden_BD
        for c in caches
    ]
    return torch.cat(parts)


def _stacked(
    stores: Sequence[Tensor | None], caches: Sequence[BlockCache], new: NewStore
) -> Tensor | None:
    """(sum B, G, S, E) rows of several stores, of which those of an empty cache may be None."""
    sample = next((store for store in stores if store is not None), None)
    if sample is None:
        return None
    num_rows, slots = (sum(c.num_rows for c in caches), max(c.num_slots for c in caches))
    joined, first = new(sample, num_rows, slots), 0
    for store, cache in zip(stores, caches, strict=True):
        if store is not None:
            rows = slice(first, first + cache.num_rows)
            joined[rows, :, : cache.num_slots] = store[:, :, : cache.num_slots]
        first += cache.num_rows
    return joined


def _roomy(store: Tensor | None, sample: Tensor, needed: int, new: NewStore) -> Tensor:
    """A (B, G, capacity, E) store with room for `needed` slots, contents kept."""
    if store is not None and store.shape[2] >= needed:
        return store
    held = 0 if store is None else store.shape[2]
    grown = new(sample, sample.shape[0], max(needed + _SPARE, held * 2))
    if store is not None:
        grown[:, :, :held] = store
    return grown
