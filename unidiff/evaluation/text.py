"""`text_bits_per_byte` and its autoregressive reading, on held-out modules of the library."""

# Shapes: W windows, L tokens of a window with its first token.

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.data.blocks import IGNORED, NO_BLOCK, TrainingRow
from unidiff.data.collator import BlockCollator
from unidiff.data.sources.library_text import gzip_bits_per_byte, iter_documents
from unidiff.diffusion.random import hash_integers
from unidiff.model.likelihood import ar_nll, nll
from unidiff.tokens.layout import MODALITY_IDS
from unidiff.tokens.positions import sequence_positions
from unidiff.tokens.text import encode_plain

from .context import EvaluationContext, Settings
from .intervals import ratio_interval
from .report import Measurement

_MOST_ABOVE_AR = 1.25  # issue 2, done when 4


@dataclass(frozen=True)
class Windows:
    """Stretches of text that are scored independently.

    Attributes:
        ids: token ids of each window, without the first token that opens it.
        num_bytes: (W,) int64, bytes of each window.
    """

    ids: list[np.ndarray]
    num_bytes: np.ndarray


def measure_text(context: EvaluationContext, settings: Settings) -> list[Measurement]:
    """Bits per byte by the bound and by the autoregressive reading, beside `gzip -9`.

    Args:
        context: model, tokenizer, how many windows.
        settings: `num_windows` (0: all), `window_length` in tokens, `block_length`, `num_samples`
            (mask sets per window) and `batch_size`.
    """
    texts = [text for _, text in iter_documents("heldout")]
    windows = cut_windows(context.processor.tokenizer, texts, settings["window_length"])
    wanted = context.count(settings["num_windows"] or len(windows.ids))
    windows = choose_windows(windows, wanted)
    bound_W, ar_W = [], []
    batches = text_batches(context, windows, settings["block_length"], settings["batch_size"])
    for number, batch in enumerate(batches):
        seed = int(hash_integers(context.seed, number))
        estimate = nll(context.model, batch, num_samples=settings["num_samples"], seed=seed)
        bound_W.append(estimate.nats_B)
        ar_W.append(ar_nll(context.model, batch))
    gzip = gzip_bits_per_byte(texts)
    details = {
        "gzip_9_bits_per_byte": gzip,
        "num_documents": len(texts),
        "num_bytes": int(windows.num_bytes.sum()),
        "num_tokens": sum(len(ids) for ids in windows.ids),
        "window_length": settings["window_length"],
        "block_length": settings["block_length"],
    }
    return _measurements(windows, torch.cat(bound_W), torch.cat(ar_W), gzip, details)


def cut_windows(tokenizer: Any, texts: list[str], length: int) -> Windows:
    """Each document's tokens cut into windows of `length`; the last of a document is shorter."""
    ids = []
    for text in texts:
        document = np.array(encode_plain(tokenizer, text), dtype=np.int64)
        ids += [document[start : start + length] for start in range(0, len(document), length)]
    sizes = token_sizes(tokenizer)
    return Windows(ids, np.array([int(sizes[window].sum()) for window in ids]))


def token_sizes(tokenizer: Any) -> np.ndarray:
    """(V,) int64 bytes that each token of a byte-level tokenizer stands for."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return np.array([len(token) for token in tokens])


def choose_windows(windows: Windows, number: int) -> Windows:
    """The `number` windows whose own hash is smallest: the same ones whatever the seed."""
    keys = hash_integers(0, torch.arange(len(windows.ids), dtype=torch.int64)).numpy()
    chosen = np.sort(np.argsort(keys, kind="stable")[:number])
    return Windows([windows.ids[index] for index in chosen], windows.num_bytes[chosen])


def text_batches(
    context: EvaluationContext, windows: Windows, block_length: int, batch_size: int
) -> Iterator[Mapping[str, Tensor]]:
    """Training batches of the windows, cut into blocks of `block_length` without any surplus."""
    layout = context.processor.layout
    begin = context.processor.encoder.special("<|bos|>")
    for start in range(0, len(windows.ids), batch_size):
        rows = [
            window_row(ids, begin, layout, block_length)
            for ids in windows.ids[start : start + batch_size]
        ]
        yield BlockCollator()(
            [
                {"row": row, "key": start + number, "stream_position": start + number}
                for number, row in enumerate(rows)
            ]
        )


def window_row(ids_L: np.ndarray, begin: int, layout: Any, block_length: int) -> TrainingRow:
    """Row of one window behind the token `begin`; every token of the window is scored."""
    ids = np.concatenate([[begin], ids_L])
    index = np.arange(len(ids))
    modality = np.full(len(ids), MODALITY_IDS["text"])
    positions, _ = sequence_positions(modality, layout)
    return TrainingRow(
        input_ids=ids,
        modality_ids=modality,
        position_ids=positions,
        labels=np.where(index > 0, ids, IGNORED),
        block_ids=np.where(index > 0, (index - 1) // block_length, NO_BLOCK),
        context_mask=np.ones(len(ids), dtype=bool),
        token_index=index,
    )


def _measurements(
    windows: Windows, bound_W: Tensor, ar_W: Tensor, gzip: float, details: dict[str, Any]
) -> list[Measurement]:
    """Both numbers, in bits per byte."""
    num_bytes = windows.num_bytes.astype(np.float64)
    bound, ar = [
        (nats_W.double().numpy() / math.log(2), float(nats_W.double().sum() / math.log(2)))
        for nats_W in (bound_W, ar_W)
    ]
    bound_value, ar_value = bound[1] / num_bytes.sum(), ar[1] / num_bytes.sum()
    shared = {**details, "ratio_to_ar": bound_value / ar_value}
    return [
        Measurement(
            name="text_bits_per_byte",
            value=bound_value,
            num_inputs=len(windows.ids),
            interval=ratio_interval(bound[0], num_bytes),
            details=shared,
            conditions={"at_most_1.25_times_ar": bound_value <= _MOST_ABOVE_AR * ar_value},
            aim=gzip,
        ),
        Measurement(
            name="text_bits_per_byte_ar",
            value=ar_value,
            num_inputs=len(windows.ids),
            interval=ratio_interval(ar[0], num_bytes),
            details=shared,
        ),
    ]
