"""Held-out text for the report on reuse: prompts, how they really went on, and a judge.

The judge is another checkpoint's autoregressive reading, with the tokenizer of both.
"""

# Shapes: B rows, L prompt tokens, G generated tokens.

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.data.blocks import IGNORED, TrainingRow
from unidiff.data.collator import BlockCollator
from unidiff.data.sources.library_text import iter_documents
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import TokenLayout

from .reuse import Judge
from .text import choose_windows, cut_windows, window_row

JUDGE_STRIDE = 64  # tokens scored at once, each after as many: windows of 128, as it was trained


def heldout_prompts(
    tokenizer: Any, first_id: int, num_rows: int, prompt_length: int, new_tokens: int
) -> tuple[Tensor, Tensor]:
    """((B, L) prompts that begin with `first_id`, (B, G) the real continuations).

    Raises:
        ValueError: if the held-out text has fewer windows of that length.
    """
    texts = [text for _, text in iter_documents("heldout")]
    length = prompt_length - 1 + new_tokens
    windows = cut_windows(tokenizer, texts, length)
    whole = [index for index, ids in enumerate(windows.ids) if len(ids) == length]
    if len(whole) < num_rows:
        raise ValueError(
            f"the held-out text has {len(whole)} windows of {length} tokens, {num_rows} are asked "
            "for: ask for fewer rows or shorter ones"
        )
    windows = type(windows)([windows.ids[index] for index in whole], windows.num_bytes[whole])
    ids_BT = torch.from_numpy(np.stack(choose_windows(windows, num_rows).ids))
    begin_B1 = torch.full((num_rows, 1), first_id)
    return torch.cat([begin_B1, ids_BT[:, : prompt_length - 1]], 1), ids_BT[:, prompt_length - 1 :]


def autoregressive_judge(model: UniDiffForBlockDiffusion, first_id: int) -> Judge:
    """The judge that reads a response left to right with `causal_context` weights.

    Args:
        model: weights of the judge.
        first_id: token that opens each of its windows.
    """
    layout = model.config.layout

    def judge(prompt_BL: Tensor, response_BG: Tensor) -> Tensor:
        """(B,) float64 nats of each response, each token after up to 127 before it."""
        start = prompt_BL.shape[1]
        ids_BT = torch.cat([prompt_BL, response_BG], 1)
        nats_B = torch.zeros(len(ids_BT), dtype=torch.float64)
        for stop in range(ids_BT.shape[1], start, -JUDGE_STRIDE):
            first = max(0, stop - 2 * JUDGE_STRIDE)
            scored = max(start, stop - JUDGE_STRIDE) - first
            rows = [
                _scored_row(ids[first:stop].numpy(), first_id, layout, scored) for ids in ids_BT
            ]
            samples = [{"row": row, "key": 0, "stream_position": 0} for row in rows]
            nats_B += model.ar_nll(BlockCollator()(samples)).cpu()
        return nats_B

    return judge


def _scored_row(ids_L: np.ndarray, begin: int, layout: TokenLayout, scored: int) -> TrainingRow:
    """Row of a window behind `begin` whose tokens from index `scored` on carry labels."""
    row = window_row(ids_L, begin, layout, len(ids_L))
    labels = row.labels.copy()
    labels[: 1 + scored] = IGNORED
    return TrainingRow(**{**vars(row), "labels": labels})
