"""UniDiff as a `Denoiser`: probes and commits of the decode loop become masked forwards.

A forward holds [tokens to commit ; canvas] over the cache. The canvas sees the committed tokens'
keys of the same layer, so fusing a commit with the next probe changes no token; DESIGN decision 11.
"""

# Shapes: B rows, T tokens to commit, K canvas tokens, Q = T + K, D width, N positions asked for.

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unidiff.generation.denoiser import Run
from unidiff.tokens.layout import TokenLayout

from .branches import branch_mask, shifted_branches
from .cache import BlockCache
from .fingerprint import weights_key
from .masks import decode_mask
from .placement import Placement

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
        self.trained_on_visible: bool = config.trained_on_visible
        self.max_positions: int = config.max_position_embeddings
        self.device: torch.device = model.model.embed_tokens.weight.device
        self.weights_key = weights_key(model.model)

    def new_cache(self, num_rows: int) -> BlockCache:
        """Empty cache."""
        cache = BlockCache(num_rows, self.model.config.num_hidden_layers, self.device)
        cache.weights_key = self.weights_key
        return cache

    def check_cache(self, cache: object) -> None:
        """Raise an error unless a cache was computed by this model with its present weights.

        Raises:
            TypeError: if it is no cache of ours.
            ValueError: if it belongs to another shape, type, device, model or adapter.
        """
        if not isinstance(cache, BlockCache):
            raise TypeError(
                "past_key_values must be the past_key_values of an earlier output of generate() "
                f"(a BlockCache) or None, got {type(cache).__name__}"
            )
        config = self.model.config
        dtype = self.model.model.embed_tokens.weight.dtype
        wanted = {"layers": config.num_hidden_layers, "device": self.device}
        held = {"layers": cache.num_layers, "device": cache.lengths_B.device}
        stored = cache.read(0)
        if stored is not None:
            wanted |= {"key-value heads": config.num_key_value_heads, "head dim": config.head_dim}
            held |= {"key-value heads": stored[0].shape[1], "head dim": stored[0].shape[3]}
            if not torch.is_autocast_enabled(self.device.type):
                wanted["dtype"], held["dtype"] = dtype, stored[0].dtype
        for name, value in wanted.items():
            if held[name] != value:
                raise ValueError(
                    f"past_key_values belongs to another model: its {name} is {held[name]}, this "
                    f"model's is {value}; leave it out"
                )
        if cache.weights_key and cache.weights_key != self.weights_key:
            raise ValueError(
                f"past_key_values was computed with other weights (fingerprint "
                f"{cache.weights_key}, this model has {self.weights_key}): another checkpoint, "
                "an adapter switched, or training in between; leave it out"
            )

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
    def commit(
        self, cache: BlockCache, run: Run, *, logits_at_BT: Tensor | None = None
    ) -> Tensor | None:
        """Store clean tokens; (N, V) scores of the successors of those asked for."""
        hidden_BTD = self._forward(cache, run, None)
        if logits_at_BT is None:
            return None
        return self.model.read_head(hidden_BTD[logits_at_BT])

    @torch.no_grad()
    def next_logits(self, cache: BlockCache) -> Tensor:
        """(B, V) scores of the token after each row's last committed one."""
        if cache.last_hidden_BD is None:
            raise ValueError("nothing was committed since the cache was made or cropped")
        return self.model.read_head(cache.last_hidden_BD)

    @torch.no_grad()
    def verify(
        self, cache: BlockCache, run: Run, canvas: Run, *, behind_BK: Tensor, logits_at_BT: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """(N, V) scores behind the run's tokens, and what reads the canvases; see `Denoiser`."""
        hidden_BQD = self._forward(cache, run, canvas, behind_BK)
        hidden_BTD, hidden_BKD = hidden_BQD.split([_width(run), _width(canvas)], dim=1)
        if self.logits_shift:
            hidden_BKD = shifted_branches(hidden_BTD, hidden_BKD, behind_BK)

        @torch.no_grad()
        def predict(logits_at_BK: Tensor) -> Tensor:
            return self.model.read_head(hidden_BKD[logits_at_BK])

        return self.model.read_head(hidden_BTD[logits_at_BT]), predict

    def _forward(
        self,
        cache: BlockCache,
        commit: Run | None,
        canvas: Run | None,
        behind_BK: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, D) hidden states of [commit ; canvas]; `commit` is stored in the cache."""
        runs = [run for run in (commit, canvas) if run is not None]
        nothing_B = torch.zeros_like(cache.lengths_B)
        placement = Placement.of(
            cache.lengths_B,
            nothing_B if commit is None else commit.length_B,
            nothing_B if canvas is None else canvas.length_B,
            (_width(commit), _width(canvas)),
        )
        if behind_BK is None:
            mask = decode_mask(placement, self.model.config.grid)
        else:
            mask = branch_mask(placement, behind_BK)
        hidden_BQD = self.model.model(
            input_ids=torch.cat([run.ids_BT for run in runs], dim=1),
            attention_mask=mask,
            position_ids=torch.cat([run.position_3BT for run in runs], dim=2),
            past_key_values=cache,
            placement=placement,
        ).last_hidden_state
        if commit is not None:
            _record(cache, commit, hidden_BQD)
        return hidden_BQD


def _width(run: Run | None) -> int:
    """Padded tokens of a run, 0 for none."""
    return 0 if run is None else run.ids_BT.shape[1]


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
