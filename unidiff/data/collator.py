"""From training rows to batches: padding, or packing several samples into one row.

A batch holds clean tokens only; noise is drawn on the device, from counters (`model/streams.py`).
"""

# Shapes: B batch, L sequence.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .blocks import IGNORED, NO_BLOCK, TrainingRow

PADDING = -1
_FILL = {"input_ids": 0, "modality_ids": 0, "labels": IGNORED, "block_ids": NO_BLOCK}
_FILL |= {"context_mask": 0, "token_index": 0}


@dataclass(frozen=True)
class BlockCollator:
    """Pads, or packs, samples {"row": TrainingRow, "key": int, "stream_position": int}.

    The batch has, each (B, L): input_ids, modality_ids, labels, block_ids, context_mask,
    token_index, attention_mask, sample_ids (number of the sample in its row, -1 padding),
    sample_keys (the sample's random key), stream_positions (its place in the training stream); and
    position_ids (3, B, L).

    Attributes:
        packed_length: None pads one sample a row; otherwise samples share rows of at most this
            many tokens (a longer sample has a row of its own).
    """

    packed_length: int | None = None

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Batch of the samples; raises ValueError for an empty list."""
        if not samples:
            raise ValueError("cannot collate an empty list of samples")
        rows = self._assign(samples)
        length = max(sum(len(sample["row"]) for sample in row) for row in rows)
        batch = {name: np.full((len(rows), length), value) for name, value in _FILL.items()}
        batch["position_ids"] = np.zeros((3, len(rows), length), dtype=np.int64)
        batch["sample_ids"] = np.full((len(rows), length), PADDING)
        batch["sample_keys"] = np.zeros((len(rows), length), dtype=np.int64)
        batch["stream_positions"] = np.zeros((len(rows), length), dtype=np.int64)
        for number, row in enumerate(rows):
            _fill_row(batch, number, row)
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        tensors["context_mask"] = tensors["context_mask"].bool()
        tensors["attention_mask"] = tensors["sample_ids"] != PADDING
        return tensors

    def _assign(self, samples: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """Samples of each row: one each, or first-fit in order of decreasing length."""
        if self.packed_length is None:
            return [[sample] for sample in samples]
        rows: list[list[Mapping[str, Any]]] = []
        room: list[int] = []
        for sample in sorted(samples, key=lambda sample: -len(sample["row"])):
            size = len(sample["row"])
            place = next((i for i, free in enumerate(room) if free >= size), None)
            if place is None:
                rows.append([])
                room.append(max(self.packed_length, size))
                place = len(rows) - 1
            rows[place].append(sample)
            room[place] -= size
        return rows


def _fill_row(
    batch: dict[str, np.ndarray], number: int, samples: Sequence[Mapping[str, Any]]
) -> None:
    """Write the samples one after the other into row `number`; blocks get distinct numbers."""
    start = 0
    for sample_id, sample in enumerate(samples):
        row: TrainingRow = sample["row"]
        part = slice(start, start + len(row))
        for name in _FILL:
            batch[name][number, part] = getattr(row, name)
        batch["position_ids"][:, number, part] = row.position_ids
        batch["sample_ids"][number, part] = sample_id
        batch["sample_keys"][number, part] = sample["key"]
        batch["stream_positions"][number, part] = sample["stream_position"]
        start += len(row)
