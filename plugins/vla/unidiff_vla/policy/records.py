"""What one call of a policy planned, and what it cost."""

# Shapes: B rows, T timesteps, D dimensions, R x C grid of a chunk's tokens: T x D of bins.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unidiff.generation.trace import Trace


@dataclass(frozen=True)
class ChunkRecord:
    """Chunks of one call, and their cost.

    Attributes:
        chunks: (B, T, D) float32 actions, as returned.
        confidence: (B, R, C) float64, confidence of each token when it was (last) revealed; 1 where
            it was pinned, or a draft that stayed, or where nothing is decoded.
        is_pinned: (B, T, D) bool, known beforehand.
        num_forwards: forwards of each row.
        seeds: key of each row; `seed=[seeds[i]]` with observation i alone repeats row i.
        traces: reveals of each row's chunk; none where nothing is decoded (regression).
        num_prompt_tokens: tokens of each row's prompt.
        num_reused_tokens: leading prompt tokens whose keys an earlier plan had computed.
        futures: for each row the picture that the first camera should see after the chunk, RGB;
            none unless `PolicySettings.foresees`.
        seconds: wall time of the call from observations to actions, for all rows together.
    """

    chunks: np.ndarray
    confidence: np.ndarray
    is_pinned: np.ndarray
    num_forwards: tuple[int, ...]
    seeds: tuple[int, ...]
    traces: tuple[Trace, ...]
    num_prompt_tokens: tuple[int, ...]
    num_reused_tokens: int
    seconds: float
    futures: tuple[Image.Image, ...] = ()


def chunk_traces(traces: Sequence[Trace], first: int) -> tuple[Trace, ...]:
    """The reveals of each row's chunk, which stands last in its canvas, counted from its start.

    Args:
        traces: reveals of each row's canvas.
        first: index of the chunk's first token in the canvas.
    """
    own = []
    for trace in traces:
        own.append(Trace())
        for step, index, token_id, confidence in trace:
            if index >= first:
                own[-1].note(step, index - first, token_id, confidence)
    return tuple(own)


def confidence_of(traces: Sequence[Trace], shape: tuple[int, int]) -> np.ndarray:
    """(B, R, C) float64 confidence of each token's last reveal, 1 where there was none.

    Args:
        traces: reveals of each row.
        shape: (R, C).
    """
    confidence_BK = np.ones((len(traces), shape[0] * shape[1]))
    for row, trace in enumerate(traces):
        confidence_BK[row, trace.index] = trace.confidence  # of an index given twice the last one
    return confidence_BK.reshape(-1, *shape)


def num_shared(old: Sequence[int], new: Sequence[int]) -> int:
    """Leading ids that two rows have in common."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(old), len(new)))
