"""UniDiff as a `Denoiser`: probes and commits of the decode loop become masked forwards.

A forward holds [tokens to commit ; canvas] over the cache. The canvas sees the committed tokens'
keys of the same layer, so fusing a commit with the next probe changes no token; DESIGN decision 11.
"""

# Shapes: B rows, T tokens to commit, K canvas tokens, Q = T + K, D width, N positions asked for.

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unidiff.generation.denoiser import Run
from unidiff.tokens.layout import TokenLayout

from .cache import BlockCache
from .masks import decode_mask

if TYPE_CHECKING:
    from .modeling import UniDiffForBlockDiffusion


class ModelDenoiser:
    """`unidiff.generation.denoiser.Denoiser` over a `UniDiffForBlockDiffusion`."""

    def __init__(self, model: "UniDiffForBlockDiffusion") -> None:
        """Read the facts that decoding needs from the model's configuration."""
        config = model.config
        self.model = model
        self.layout: TokenLayout = config.layout
        self.attention_pattern: str = config.attention_pattern
        self.canvas_length: int = config.canvas_length
        self.logits_shift: int = config.logits_shift
        self.vocab_size: int = config.vocab_size
        self.device: torch.device = model.model.embed_tokens.weight.device

    def new_cache(self, num_rows: int) -> BlockCache:
        """Empty cache."""
        return BlockCache(num_rows, self.model.config.num_hidden_layers, self.device)

    def join_caches(self, caches: Sequence[BlockCache]) -> BlockCache:
        """A cache with the rows of several, in order."""
        return BlockCache.concatenate(caches)

    @torch.no_grad()
    def probe(
        self,
        cache: BlockCache,
        canvas: Run,
        *,
        logits_at_BK: Tensor,
        commit: Run | None = None,
        id_range: tuple[int, int] | None = None,
    ) -> Tensor:
        """(N, V) predictions for the canvas tokens asked for; see `Denoiser.probe`.

        Raises:
            ValueError: if a first canvas token is asked for that no token precedes, although the
                weights predict successors (`logits_shift=1`).
        """
        before_BD = cache.last_hidden_BD
        hidden_BQD = self._forward(cache, commit, canvas)
        width = 0 if commit is None else commit.ids_BT.shape[1]
        hidden_BKD = hidden_BQD[:, width:]
        if self.logits_shift:
            previous_BD = cache.last_hidden_BD if commit is not None else before_BD
            hidden_BKD = _shifted(hidden_BKD, previous_BD, logits_at_BK)
        return self.model.read_head(hidden_BKD[logits_at_BK], id_range)

    @torch.no_grad()
    def commit(self, cache: BlockCache, run: Run, *, needs_logits: bool = False) -> Tensor | None:
        """Store clean tokens; (B, V) readings of each row's last one if asked for."""
        self._forward(cache, run, None)
        if not needs_logits or cache.last_hidden_BD is None:
            return None
        return self.model.read_head(cache.last_hidden_BD)

    def _forward(self, cache: BlockCache, commit: Run | None, canvas: Run | None) -> Tensor:
        """(B, Q, D) hidden states of [commit ; canvas]; `commit` is stored in the cache."""
        nothing = np.zeros((3, 0), dtype=np.int64)
        empty = Run.of([[]] * cache.num_rows, [nothing] * cache.num_rows, self.device)
        first, second = commit or empty, canvas or empty
        widths = (first.ids_BT.shape[1], second.ids_BT.shape[1])
        mask = decode_mask(
            cache.lengths_B,
            cache.num_slots,
            first.length_B,
            second.length_B,
            widths,
            self.model.config.grid,
        )
        hidden_BQD = self.model.model(
            input_ids=torch.cat([first.ids_BT, second.ids_BT], dim=1),
            attention_mask=mask,
            position_ids=torch.cat([first.position_3BT, second.position_3BT], dim=2),
            past_key_values=cache,
            num_stored=first.length_B if commit is not None else None,
        ).last_hidden_state
        if commit is not None:
            _record(cache, commit, hidden_BQD)
        return hidden_BQD


def _record(cache: BlockCache, run: Run, hidden_BQD: Tensor) -> None:
    """Note in the cache which tokens a forward has stored, and its reading of the last ones."""
    lengths = run.length_B.tolist()
    ids = [row[:n] for row, n in zip(run.ids_BT.tolist(), lengths, strict=True)]
    position_3BT = run.position_3BT.cpu().numpy()
    cache.advance(ids, [position_3BT[:, row, :n] for row, n in enumerate(lengths)])
    last_B = (run.length_B - 1).clamp(min=0)
    last_BD = hidden_BQD[torch.arange(len(lengths), device=last_B.device), last_B]
    if cache.last_hidden_BD is None:
        cache.last_hidden_BD = last_BD
    else:
        cache.last_hidden_BD = torch.where(
            (run.length_B > 0)[:, None], last_BD, cache.last_hidden_BD
        )


def _shifted(hidden_BKD: Tensor, previous_BD: Tensor | None, logits_at_BK: Tensor) -> Tensor:
    """(B, K, D) hidden states one place to the right: row i - 1 speaks for token i."""
    if previous_BD is None:
        if bool(logits_at_BK[:, :1].any()):
            raise ValueError(
                "logits_shift=1 weights predict successors: the first canvas token needs a token "
                "before it; pass a prompt of at least one token"
            )
        previous_BD = torch.zeros_like(hidden_BKD[:, 0])
    return torch.cat([previous_BD[:, None], hidden_BKD[:, :-1]], dim=1)
