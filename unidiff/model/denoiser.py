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

from .attention import MATMUL, additive_mask, decoding_attention
from .cache import BlockCache
from .draft_canvases import branch_mask, shifted_branches
from .fingerprint import weights_key
from .masks import decode_mask
from .packing import packed_weights
from .placement import Placement
from .row_adapters import RowAdapters, check_row_adapters
from .soft_positions import embedded, soft_mask

if TYPE_CHECKING:
    from .modeling import UniDiffForBlockDiffusion


class ModelDenoiser:
    """`unidiff.generation.denoiser.Denoiser` over a `UniDiffForBlockDiffusion`."""

    def __init__(
        self, model: "UniDiffForBlockDiffusion", prepack: bool = False, is_static: bool = False
    ) -> None:
        """Read the facts that decoding needs from the model's configuration.

        Args:
            model: the network.
            prepack: multiply by a second copy of the weights in a faster layout.
            is_static: keep the shapes of forwards from changing, so that a compiled model is
                compiled a few times only.
        """
        config = model.config
        self.packed = packed_weights(model) if prepack else None
        self.is_static = is_static
        self.model = model
        self.layout: TokenLayout = config.layout
        self.attention_pattern: str = config.attention_pattern
        self.canvas_length: int = config.canvas_length
        self.logits_shift: int = config.logits_shift
        self.vocab_size: int = config.vocab_size
        self.trained_on_visible: bool = config.trained_on_visible
        self.noise_process: str = config.noise_process
        self.uniform_prediction: str | None = config.uniform_prediction
        self.max_positions: int = config.max_position_embeddings
        self.device: torch.device = model.model.embed_tokens.weight.device
        self.weights_key = weights_key(model.model)
        self.trunk_adapters = RowAdapters(model.model)
        self.head_adapters = RowAdapters(model.lm_head)

    def new_cache(self, num_rows: int, adapters: Sequence[str | None] | None = None) -> BlockCache:
        """Empty cache; `adapters` name the adapter that reads each row, None: what is active."""
        cache = BlockCache(num_rows, self.model.config.num_hidden_layers, self.device)
        cache.weights_key = self.weights_key
        if adapters is not None:
            cache.adapters = list(adapters)
        return cache

    def check_adapters(self, names: Sequence[str]) -> None:
        """Raise ValueError unless rows read by these adapters can be decoded together."""
        if self.packed:
            raise ValueError(
                "prepack_weights=True decodes from one copy of the weights, adapter_names asks for "
                "several: leave one of them out"
            )
        check_row_adapters(self.model, names)

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
        _, hidden_BKD = self._forward(cache, commit, canvas)
        if self.logits_shift:
            previous_BD = cache.last_hidden_BD if commit is not None else before_BD
            hidden_BKD = _shifted(hidden_BKD, previous_BD, logits_at_BK)
        return self._read_head(cache, hidden_BKD, logits_at_BK, id_range)

    @torch.no_grad()
    def commit(
        self, cache: BlockCache, run: Run, *, logits_at_BT: Tensor | None = None
    ) -> Tensor | None:
        """Store clean tokens; (N, V) scores of the successors of those asked for."""
        hidden_BTD, _ = self._forward(cache, run, None)
        if logits_at_BT is None:
            return None
        return self._read_head(cache, hidden_BTD, logits_at_BT)

    @torch.no_grad()
    def next_logits(self, cache: BlockCache) -> Tensor:
        """(B, V) scores of the token after each row's last committed one."""
        if cache.last_hidden_BD is None:
            raise ValueError("nothing was committed since the cache was made or cropped")
        everywhere_B = torch.ones_like(cache.lengths_B, dtype=torch.bool)
        return self._read_head(cache, cache.last_hidden_BD, everywhere_B)

    @torch.no_grad()
    def verify(
        self, cache: BlockCache, run: Run, canvas: Run, *, behind_BK: Tensor, logits_at_BT: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """(N, V) scores behind the run's tokens, and what reads the canvases; see `Denoiser`."""
        hidden_BTD, hidden_BKD = self._forward(cache, run, canvas, behind_BK)
        if self.logits_shift:
            hidden_BKD = shifted_branches(hidden_BTD, hidden_BKD, behind_BK)

        @torch.no_grad()
        def predict(logits_at_BK: Tensor) -> Tensor:
            return self._read_head(cache, hidden_BKD, logits_at_BK)

        return self._read_head(cache, hidden_BTD, logits_at_BT), predict

    def _read_head(
        self,
        cache: BlockCache,
        hidden: Tensor,
        wanted: Tensor,
        id_range: tuple[int, int] | None = None,
    ) -> Tensor:
        """(N, V) logits of the wanted ones of (B, ..., D) states, each by its row's adapter."""
        read, hidden_ND = self.model.read_head, hidden[wanted]
        if self.packed:
            return self.packed.read_head(hidden_ND, id_range)
        if not self.head_adapters:
            return read(hidden_ND, id_range)
        rows = torch.nonzero(wanted)[:, 0].tolist()
        with self.head_adapters.reading([cache.adapters[row] for row in rows]):
            return read(hidden_ND, id_range)

    def _forward(
        self,
        cache: BlockCache,
        commit: Run | None,
        canvas: Run | None,
        behind_BK: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) and (B, K, D) hidden states of both runs; `commit` is stored in the cache."""
        widths = _width(commit), _width(canvas)
        if self.is_static:
            commit, canvas = self._padded(commit), self._padded(canvas)
        runs = [run for run in (commit, canvas) if run is not None]
        nothing_B = torch.zeros_like(cache.lengths_B)
        place = Placement.static if self.is_static else Placement.of
        placement = place(
            cache.lengths_B,
            nothing_B if commit is None else commit.length_B,
            nothing_B if canvas is None else canvas.length_B,
            (_width(commit), _width(canvas)),
        )
        with self.trunk_adapters.reading(cache.adapters):
            hidden_BQD = self.model.model(
                **self._inputs(cache, torch.cat([run.ids_BT for run in runs], dim=1)),
                attention_mask=self._mask(placement, behind_BK, self._prefix(cache, commit)),
                position_ids=torch.cat([run.position_3BT for run in runs], dim=2),
                past_key_values=cache,
                placement=placement,
                packed=self.packed,
            ).last_hidden_state
        if commit is not None:
            _record(cache, commit, hidden_BQD)
        start = _width(commit)
        return hidden_BQD[:, : widths[0]], hidden_BQD[:, start : start + widths[1]]

    def _inputs(self, cache: BlockCache, ids_BQ: Tensor) -> dict[str, Tensor]:
        """New tokens as ids, or as embeddings where some are features of pictures."""
        if all(one is None for one in cache.soft):
            return {"input_ids": ids_BQ}
        token = self.layout.soft_token_id
        assert token is not None  # only rows with such positions have features
        before_B = [ids.count(token) for ids in cache.token_ids]
        embed = self.model.model.embed_tokens
        return {
            "inputs_embeds": embedded(embed, ids_BQ, soft_mask(ids_BQ, token), cache.soft, before_B)
        }

    def _mask(
        self, placement: Placement, behind_BK: Tensor | None, prefix_B: Tensor | None
    ) -> Tensor | None:
        """Mask of a forward; `behind_BK` where canvases stand behind tokens of the run."""
        if behind_BK is None:
            return decode_mask(placement, self.model.config.context_grid, self._additive, prefix_B)
        rest = placement.widths[1] - behind_BK.shape[1]
        mask = branch_mask(placement, torch.nn.functional.pad(behind_BK, (0, rest)), prefix_B)
        return mask if self._additive is None else additive_mask(mask, self._additive)

    def _prefix(self, cache: BlockCache, commit: Run | None) -> Tensor | None:
        """(B,) int64, leading tokens of each row that see each other; None: no layout's prompts."""
        end = self.layout.prefix_end_token_id
        if end is None or commit is None:
            return None
        rows = zip(commit.ids_BT.tolist(), commit.length_B.tolist(), strict=True)
        found = [self.layout.prefix_length(ids[:length]) for ids, length in rows]
        held = [len(ids) for ids in cache.token_ids]
        is_over = [end in ids for ids in cache.token_ids]
        return commit.length_B.new_tensor(
            [
                before + own if own and not over else 0
                for before, own, over in zip(held, found, is_over, strict=True)
            ]
        )

    @property
    def _additive(self) -> torch.dtype | None:
        """Dtype of masks if the attention function adds them, None if it takes bool masks."""
        weight = self.model.model.embed_tokens.weight
        name = decoding_attention(self.model.config._attn_implementation, weight)
        return weight.dtype if name == MATMUL else None

    def _padded(self, run: Run | None) -> Run | None:
        """A run padded to whole canvases; one token stays one, for the `ar` mode."""
        if run is None or run.ids_BT.shape[1] == 1:
            return run
        rest = -run.ids_BT.shape[1] % self.canvas_length
        pad = torch.nn.functional.pad
        return Run(pad(run.ids_BT, (0, rest)), pad(run.position_3BT, (0, rest)), run.length_B)


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
