"""What decoding asks of a model: probe a canvas, commit clean tokens, remember them in a cache.

The decode loop sees a model only through these protocols, so that our transformer, a foreign one,
vLLM and a table of probabilities in a test are all the same to it.
"""

# Shapes: B rows, T tokens of a run, K canvas tokens, N positions asked for, V vocabulary.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from unidiff.tokens.layout import TokenLayout

WHOLE_PATTERNS = ("full", "prefix")  # whose response is one canvas, revealed window by window


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of each row, right-padded; a row may bring none.

    Attributes:
        ids_BT: (B, T) int64.
        position_3BT: (3, B, T) int64, time, row and column of each token.
        length_B: (B,) int64, real tokens of each row.
    """

    ids_BT: Tensor
    position_3BT: Tensor
    length_B: Tensor

    @classmethod
    def of(
        cls,
        ids: Sequence[Sequence[int]],
        positions: Sequence[np.ndarray],
        device: torch.device,
    ) -> "Run":
        """Run of ragged rows: ids as lists, positions as (3, n) arrays."""
        width = max((len(row) for row in ids), default=0)
        ids_BT = np.zeros((len(ids), width), dtype=np.int64)
        position_3BT = np.zeros((3, len(ids), width), dtype=np.int64)
        for index, (row, position_3N) in enumerate(zip(ids, positions, strict=True)):
            ids_BT[index, : len(row)] = row
            position_3BT[:, index, : len(row)] = position_3N
        lengths = torch.tensor([len(row) for row in ids], dtype=torch.int64, device=device)
        return cls(
            torch.from_numpy(ids_BT).to(device), torch.from_numpy(position_3BT).to(device), lengths
        )


class DecodingCache(Protocol):
    """Committed tokens of each row; what else it holds is the denoiser's business.

    Attributes:
        token_ids: committed ids of each row.
        positions: (3, n) array of each row, where its committed tokens stand.
        tail: generated ids of each row that were never committed.
        adapters: name of the adapter that reads each row; None: what is active.
        soft: (N, D) what stands at the soft positions of each row, in order; None: it has none.
    """

    token_ids: list[list[int]]
    positions: list[np.ndarray]
    tail: list[list[int]]
    adapters: list[str | None]
    soft: list[Tensor | None]

    def select_rows(self, rows: Sequence[int]) -> Self:
        """A cache that holds copies of the given rows, in that order."""
        ...

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget what lies behind the first `lengths[b]` tokens of each row."""
        ...


CacheT = TypeVar("CacheT", bound=DecodingCache)


class Denoiser(Protocol[CacheT]):
    """A model as the decode loop sees it.

    Attributes:
        layout: id range of each modality.
        attention_pattern: `causal_context`, `block_causal`, `full`, or `prefix`: full within the
            prompt, which does not see the response, and the response sees everything.
        canvas_length: default canvas; the trained grid under `block_causal`.
        logits_shift: 0 if a canvas row predicts itself, 1 if it predicts its successor. The
            denoiser does the shifting; decoding only needs to know that a first token must exist.
        vocab_size: ids that logits range over when no range is asked for.
        device: where tensors must live.
        trained_on_visible: whether what it says of visible canvas tokens means anything.
        max_positions: longest position seen in training, plus 1.
        noise_process: `absorbing` or `uniform`, what its canvases were corrupted with in training.
        uniform_prediction: `leave_one_out` or `posterior` for uniform noise, else None.
    """

    layout: TokenLayout
    attention_pattern: str
    canvas_length: int
    logits_shift: int
    vocab_size: int
    device: torch.device
    trained_on_visible: bool
    max_positions: int
    noise_process: str
    uniform_prediction: str | None

    def new_cache(self, num_rows: int, adapters: Sequence[str | None] | None = None) -> CacheT:
        """Empty cache; `adapters` name the adapter that reads each row, None: what is active."""
        ...

    def check_cache(self, cache: object) -> None:
        """Raise TypeError or ValueError unless the cache was computed by this model."""
        ...

    def check_adapters(self, names: Sequence[str]) -> None:
        """Raise ValueError unless rows read by these adapters can be decoded together."""
        ...

    def join_caches(self, caches: Sequence[CacheT]) -> CacheT:
        """A cache with the rows of several, in order."""
        ...

    def probe(
        self,
        cache: CacheT,
        canvas: Run,
        *,
        logits_at_BK: Tensor,
        commit: Run | None = None,
        id_range: tuple[int, int] | None = None,
    ) -> Tensor:
        """Predictions for canvas tokens; the canvas itself is never stored.

        Args:
            cache: what each row has committed; grows by `commit`.
            canvas: tokens that see the cache, `commit` and each other in both directions.
            logits_at_BK: (B, K) bool, canvas tokens whose prediction is wanted.
            commit: clean tokens stored in the same forward (the fused commit); they do not see the
                canvas.
            id_range: (start, stop) of the ids wanted; None: all.

        Returns:
            (N, V) or (N, stop - start) logits of the wanted tokens, row by row, in a tensor that
            the caller may write to.
        """
        ...

    def commit(
        self, cache: CacheT, run: Run, *, logits_at_BT: Tensor | None = None
    ) -> Tensor | None:
        """Store clean tokens.

        Args:
            cache: grows by `run`.
            run: clean tokens that follow what the cache holds.
            logits_at_BT: (B, T) bool, tokens whose successor's scores are wanted; None: none.

        Returns:
            (N, V) scores of the token after each one asked for, row by row; None if none was.
        """
        ...

    def verify(
        self, cache: CacheT, run: Run, canvas: Run, *, behind_BK: Tensor, logits_at_BT: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Store clean tokens that are only supposed, and draft behind several of them at once.

        Args:
            cache: grows by `run`; the caller crops what turns out to be wrong.
            run: clean tokens that follow what the cache holds.
            canvas: masked tokens; those behind the same token of the run form one canvas, which
                sees the cache, the run up to that token, and itself.
            behind_BK: (B, K) int64, index in the run of the token each canvas token stands behind;
                any valid index where the canvas is padding.
            logits_at_BT: (B, T) bool, tokens of the run whose successor's scores are wanted.

        Returns:
            (N, V) scores of the token after each one asked for, row by row, and a function that
            gives the (M, V) predictions for the canvas tokens that are True in a (B, K) mask.
        """
        ...

    def next_logits(self, cache: CacheT) -> Tensor:
        """(B, V) scores of the token after each row's last committed one.

        Raises:
            ValueError: if no token was committed since the cache was made or cropped.
        """
        ...
