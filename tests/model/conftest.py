"""Tiny models and training samples of chosen tokens."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from small_decoding import random_model

from unidiff.data.blocks import IGNORED, TrainingRow
from unidiff.model.modeling import UniDiffForBlockDiffusion

VOCAB = 24


@pytest.fixture
def make_model() -> Callable[..., UniDiffForBlockDiffusion]:
    """Builder of tiny models whose random weights lie far enough apart to matter."""

    def build(**fields: Any) -> UniDiffForBlockDiffusion:
        return random_model(5, **{"vocab_size": VOCAB, "canvas_length": 4, **fields})

    return build


@pytest.fixture
def make_sample() -> Callable[..., dict[str, Any]]:
    """Builder of text samples for the collator."""

    def build(
        ids: Sequence[int],
        blocks: Sequence[int],
        pinned: Sequence[int] = (),
        outside_context: Sequence[int] = (),
        key: int = 1,
    ) -> dict[str, Any]:
        """Tokens `ids`, their blocks (-1: context only); `pinned` ones of them carry no label."""
        length = len(ids)
        id_L, block_L, index_L = np.array(ids), np.array(blocks), np.arange(length)
        is_label = (block_L >= 0) & ~np.isin(index_L, pinned)
        row = TrainingRow(
            input_ids=id_L,
            modality_ids=np.zeros(length, dtype=np.int64),
            position_ids=np.broadcast_to(index_L, (3, length)),
            labels=np.where(is_label, id_L, IGNORED),
            block_ids=block_L,
            context_mask=~np.isin(index_L, outside_context),
            token_index=index_L,
        )
        return {"row": row, "key": key, "stream_position": key}

    return build
