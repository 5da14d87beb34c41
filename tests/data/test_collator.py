"""The collator: padding, packing, and what every field holds."""

from typing import Any

import numpy as np
import pytest

from unidiff.data.blocks import IGNORED, TrainingRow
from unidiff.data.collator import BlockCollator


def sample(length: int, key: int) -> dict[str, Any]:
    index = np.arange(length)
    row = TrainingRow(
        input_ids=10 * key + index,
        modality_ids=np.full(length, key % 2),
        position_ids=np.stack([index, index + 1, index + 2]),
        labels=np.where(index > 0, 10 * key + index, IGNORED),
        block_ids=np.where(index > 0, 0, -1),
        context_mask=index < length - 1,
        token_index=index,
    )
    return {"row": row, "key": -key, "stream_position": 100 + key}


def test_padding_gives_each_sample_its_own_row() -> None:
    batch = BlockCollator()([sample(3, 1), sample(2, 2)])
    assert batch["input_ids"].tolist() == [[10, 11, 12], [20, 21, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 11, 12], [IGNORED, 21, IGNORED]]
    assert batch["block_ids"].tolist() == [[-1, 0, 0], [-1, 0, -1]]
    assert batch["sample_ids"].tolist() == [[0, 0, 0], [0, 0, -1]]
    assert batch["attention_mask"].tolist() == [[True] * 3, [True, True, False]]
    assert batch["context_mask"].tolist() == [[True, True, False], [True, False, False]]
    assert batch["modality_ids"].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert batch["token_index"].tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch["sample_keys"].tolist() == [[-1] * 3, [-2, -2, 0]]
    assert batch["stream_positions"].tolist() == [[101] * 3, [102, 102, 0]]
    assert batch["position_ids"].tolist() == [
        [[0, 1, 2], [0, 1, 0]],
        [[1, 2, 3], [1, 2, 0]],
        [[2, 3, 4], [2, 3, 0]],
    ]


def test_packing_fills_rows_and_loses_nothing() -> None:
    lengths = [3, 5, 2, 4, 2, 7]
    batch = BlockCollator(packed_length=8)([sample(n, key) for key, n in enumerate(lengths, 1)])
    assert batch["input_ids"].shape[1] <= 8
    assert len(batch["input_ids"]) == 3  # 23 tokens
    found = {}
    for row, ids in enumerate(batch["sample_ids"].tolist()):
        for number in set(ids) - {-1}:
            at = batch["sample_ids"][row] == number
            key = -int(batch["sample_keys"][row][at].unique())
            found[key] = batch["input_ids"][row][at].tolist()
            assert batch["token_index"][row][at].tolist() == list(range(len(found[key])))
    assert found == {key: [10 * key + i for i in range(n)] for key, n in enumerate(lengths, 1)}


def test_a_sample_longer_than_the_row_has_a_row_of_its_own() -> None:
    batch = BlockCollator(packed_length=4)([sample(2, 1), sample(6, 2), sample(2, 3)])
    assert batch["input_ids"].shape == (2, 6)
    assert batch["sample_ids"].tolist() == [[0] * 6, [0, 0, 1, 1, -1, -1]]


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="empty list"):
        BlockCollator()([])
