"""A denoiser for full-attention weights that recomputes only part of the canvas at each step.

The decode loop probes the whole canvas as ever; between probes this denoiser keeps keys and values
that may be stale, and its rule says which tokens it computes anew. Nothing here is exact; what it
costs is measured by `unidiff.evaluation.reuse`.
"""

# Shapes: B rows, W canvas, N positions asked for, V ids, D width.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unidiff.generation.denoiser import Run
from unidiff.generation.reuse import is_approximate

from .denoiser import ModelDenoiser
from .reuse_cache import ReuseCache
from .reuse_layers import Tokens
from .reuse_rules import ReuseRule, Situation, reuse_rule
from .reuse_statistics import ReuseStatistics
from .reuse_walks import WALKS, Step, stale_walk

if TYPE_CHECKING:
    from .modeling import UniDiffForBlockDiffusion


def denoiser_for(
    model: "UniDiffForBlockDiffusion", options: Mapping[str, Any]
) -> "ModelDenoiser | ReuseDenoiser":
    """The denoiser that `cache_reuse` asks for.

    Raises:
        ValueError: if approximate reuse is to run from packed weights or in static shapes.
    """
    prepack, is_static = options["prepack_weights"], options["cache_implementation"] == "static"
    if not is_approximate(options) or model.config.attention_pattern != "full":
        return ModelDenoiser(model, prepack, is_static)
    if prepack or is_static:
        raise ValueError(
            f"cache_reuse={options['cache_reuse']!r} computes some tokens of a layer at a time: "
            "leave prepack_weights and cache_implementation out"
        )
    return ReuseDenoiser(model, reuse_rule(options))


class ReuseDenoiser(ModelDenoiser):
    """`unidiff.generation.denoiser.Denoiser` with approximate reuse, for `full` attention."""

    def __init__(self, model: "UniDiffForBlockDiffusion", rule: ReuseRule) -> None:
        """Nothing is kept here but counts: the cache holds the features."""
        super().__init__(model)
        self.rule = rule
        self.statistics = ReuseStatistics(model.config.num_hidden_layers)

    def new_cache(  # type: ignore[override]
        self, num_rows: int, adapters: Sequence[str | None] | None = None
    ) -> ReuseCache:
        """Rows of which nothing is known: their first probe computes every token."""
        del adapters  # refused by `check_adapters`
        return ReuseCache(num_rows, self.device)

    def check_adapters(self, names: Sequence[str]) -> None:
        """Raise ValueError: a step computes tokens of all rows in one line."""
        raise ValueError(
            f"adapter_names={list(names)} cannot be mixed under approximate reuse: leave "
            "cache_reuse out, or set_adapter() one adapter for all rows"
        )

    def join_caches(  # type: ignore[override]
        self, caches: Sequence[ReuseCache]
    ) -> ReuseCache:
        """A cache with the rows of several, in order."""
        return ReuseCache.concatenate(caches)

    @torch.no_grad()
    def probe(  # type: ignore[override]
        self,
        cache: ReuseCache,
        canvas: Run,
        *,
        logits_at_BK: Tensor,
        commit: Run | None = None,
        id_range: tuple[int, int] | None = None,
    ) -> Tensor:
        """(N, V) predictions for the canvas tokens asked for; see `Denoiser.probe`.

        Raises:
            ValueError: if there is something to commit, which full attention never does, or
                `logits_shift=1` weights are asked for a token that no token precedes.
        """
        if commit is not None:
            raise ValueError("approximate reuse commits nothing: the prompt is part of the canvas")
        now = cache.observe(canvas, logits_at_BK, self.layout.mask_token_id)
        reads_BW = self._readers(logits_at_BK)
        step = Step(
            self.model.model,
            cache,
            now,
            Tokens.of(reads_BW),
            canvas.position_3BT,
            cache.rotation(self.model.model, canvas.position_3BT),
            self.statistics,
        )
        walk = WALKS.get(type(self.rule), stale_walk)
        hidden_ND = walk(step, self.rule, self._chosen(now, reads_BW))
        return self.model.read_head(hidden_ND, id_range)

    def _chosen(self, now: Situation, reads_BW: Tensor) -> Tensor:
        """(B, W) bool, tokens to compute: the rule's, all of a new row, and who is asked."""
        chosen_BW = self.rule.recompute(now) | (now.step_B == 0)[:, None]
        if self.logits_shift:
            chosen_BW = chosen_BW | reads_BW
        return chosen_BW & now.real_BW

    def _readers(self, logits_at_BW: Tensor) -> Tensor:
        """(B, W) bool, tokens whose hidden state predicts those asked for."""
        if not self.logits_shift:
            return logits_at_BW
        if bool(logits_at_BW[:, 0].any()):
            raise ValueError(
                "logits_shift=1 weights predict successors: the first canvas token needs a token "
                "before it; pass a prompt of at least one token"
            )
        return torch.nn.functional.pad(logits_at_BW[:, 1:], (0, 1))
