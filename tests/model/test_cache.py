"""The cache of committed keys and values: rows of own length, selected, joined and cropped."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.model.cache import BlockCache
from unidiff.model.placement import Placement

GROUPS, DIM = 1, 2


def commit(cache: BlockCache, ids: list[list[int]]) -> None:
    """Store tokens whose key is their id and whose value is its negative."""
    width = max(len(row) for row in ids)
    padded = torch.tensor([row + [99] * (width - len(row)) for row in ids]).float()
    key = padded[:, None, :, None].expand(-1, GROUPS, -1, DIM)
    stored = torch.tensor([len(row) for row in ids])
    placement = Placement.of(cache.lengths_B, stored, torch.zeros_like(stored), (width, 0))
    for layer in range(2):
        cache.extend(layer, key, -key, placement)
    starts = cache.lengths_B.tolist()
    positions = [
        np.broadcast_to(np.arange(start, start + len(row)), (3, len(row)))
        for start, row in zip(starts, ids, strict=True)
    ]
    cache.advance(ids, positions)


def stored_ids(cache: BlockCache, layer: int = 1) -> list[list[int]]:
    """Ids that the stored keys of each row stand for."""
    read: Any = cache.read(layer)
    key: Tensor = read[0]
    assert torch.equal(read[1][..., 0], -key[..., 0])
    lengths = cache.lengths_B.tolist()
    return [row[0, :n, 0].long().tolist() for row, n in zip(key, lengths, strict=True)]


def two_rows() -> BlockCache:
    cache = BlockCache(2, 2)
    commit(cache, [[5, 6, 7], [8]])
    commit(cache, [[9], [10, 11]])
    return cache


def test_an_empty_cache_reads_nothing() -> None:
    cache = BlockCache(3, 2)
    assert cache.read(0) is None
    assert cache.num_slots == cache.get_seq_length() == 0
    assert cache.num_rows == 3


def test_rows_of_different_length_keep_their_own_tokens() -> None:
    cache = two_rows()
    assert cache.lengths_B.tolist() == [4, 3]
    assert cache.get_seq_length() == 4
    assert cache.token_ids == [[5, 6, 7, 9], [8, 10, 11]]
    for layer in range(2):
        assert stored_ids(cache, layer) == cache.token_ids
    assert [p[0].tolist() for p in cache.positions] == [[0, 1, 2, 3], [0, 1, 2]]


@pytest.mark.parametrize("counts", [[2, 2], [0, 2], [2, 1]])
def test_a_canvas_stands_behind_the_run_for_one_forward_and_is_not_counted(
    counts: list[int],
) -> None:
    cache = two_rows()
    key = torch.tensor([[50.0, 51, 60, 61], [70, 71, 80, 81]])[:, None, :, None]
    key = key.expand(-1, GROUPS, -1, DIM)
    canvas = torch.tensor([2, 1])
    placement = Placement.of(cache.lengths_B, torch.tensor(counts), canvas, (2, 2))
    seen, value = cache.extend(0, key, -key, placement)
    held, new = [[5, 6, 7, 9], [8, 10, 11]], [[50, 51, 60, 61], [70, 71, 80, 81]]
    for row in range(2):
        run, rest = new[row][: counts[row]], new[row][2 : 2 + int(canvas[row])]
        expected = held[row] + run + rest
        assert seen[row, 0, : len(expected), 0].tolist() == expected
        assert value[row, 0, : len(expected), 0].tolist() == [-token for token in expected]
    assert cache.num_slots == 4
    assert stored_ids(cache, 0) == held


def test_storing_nothing_for_a_row_leaves_it_as_it_was() -> None:
    cache = two_rows()
    commit(cache, [[], [12]])
    assert stored_ids(cache) == [[5, 6, 7, 9], [8, 10, 11, 12]]


def test_growth_over_many_commits_keeps_everything() -> None:
    cache = BlockCache(1, 2)
    for token in range(37):
        commit(cache, [[token]])
    assert stored_ids(cache) == [list(range(37))]


def test_selected_rows_are_copies_in_the_order_asked_for() -> None:
    cache = two_rows()
    cache.tail = [[1], [2, 3]]
    cache.last_hidden_BD = torch.tensor([[0.0], [1.0]])
    chosen = cache.select_rows([1, 1, 0])
    assert stored_ids(chosen) == [[8, 10, 11], [8, 10, 11], [5, 6, 7, 9]]
    assert chosen.tail == [[2, 3], [2, 3], [1]]
    assert chosen.last_hidden_BD is not None
    assert chosen.last_hidden_BD[:, 0].tolist() == [1.0, 1.0, 0.0]
    commit(chosen, [[1], [2], [3]])
    assert stored_ids(cache) == [[5, 6, 7, 9], [8, 10, 11]]
    assert cache.token_ids == [[5, 6, 7, 9], [8, 10, 11]]


def test_concatenated_caches_hold_all_rows() -> None:
    joined = BlockCache.concatenate([two_rows(), BlockCache(1, 2), two_rows().select_rows([1])])
    assert joined.lengths_B.tolist() == [4, 3, 0, 3]
    assert stored_ids(joined) == [[5, 6, 7, 9], [8, 10, 11], [], [8, 10, 11]]
    commit(joined, [[1], [2], [3], [4]])
    assert stored_ids(joined)[2] == [3]


def test_concatenating_nothing_or_other_models_is_refused() -> None:
    with pytest.raises(ValueError, match="same depth"):
        BlockCache.concatenate([])
    with pytest.raises(ValueError, match="same depth"):
        BlockCache.concatenate([BlockCache(1, 2), BlockCache(1, 3)])


def test_crop_forgets_the_end_of_each_row() -> None:
    cache = two_rows()
    cache.tail = [[1], [2]]
    cache.last_hidden_BD = torch.zeros(2, 1)
    cache.crop([2, 3])
    assert stored_ids(cache) == [[5, 6], [8, 10, 11]]
    assert cache.tail == [[], []]
    assert cache.last_hidden_BD is None
    commit(cache, [[20, 21], []])
    assert stored_ids(cache) == [[5, 6, 20, 21], [8, 10, 11]]
    cache.crop([0, 0])
    assert cache.read(0) is None


@pytest.mark.parametrize("lengths", [[5, 1], [1, -1]])
def test_crop_refuses_a_length_that_a_row_does_not_have(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot keep"):
        two_rows().crop(lengths)
