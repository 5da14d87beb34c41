"""The three ways through the layers with stale keys: alike in every layer, drifting, by features.

A walk computes the chosen tokens, writes their keys and values over the stored ones and leaves the
final hidden states of what it computed in the cache.
"""

# Shapes: B rows, W canvas, N chosen tokens, M moving tokens, R chosen tokens of a row, D width,
# H heads, G key-value heads, E head dim.

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .layers import UniDiffLayer
from .reuse_cache import ReuseCache
from .reuse_layers import (
    Rotation,
    Tokens,
    attend,
    attention_weights,
    feed_forward,
    keys,
    queries,
    values,
)
from .reuse_rules import ElasticReuse, IntervalReuse, ReuseRule, Situation
from .reuse_statistics import ReuseStatistics

if TYPE_CHECKING:
    from .modeling import UniDiffModel

FINAL = "final"


@dataclass(frozen=True)
class Step:
    """One probe on its way through the layers.

    Attributes:
        network: embedding, layers and final norm.
        cache: what is kept; written to.
        now: the situation.
        rotation: cosine and sine of every token, each (B * W, 1, E).
        statistics: counts what is computed.
    """

    network: "UniDiffModel"
    cache: ReuseCache
    now: Situation
    rotation: Rotation
    statistics: ReuseStatistics

    def stored(self, name: str, like_NX: Tensor) -> Tensor:
        """(B * W, ...) feature of every token, of the shape and type of some tokens' own."""
        return self.cache.feature(name, *like_NX.shape[1:], like=like_NX)

    def store(self, name: str, flat_N: Tensor, value_NX: Tensor) -> Tensor:
        """The feature after some tokens' values were written into it, (B, W, ...)."""
        store = self.stored(name, value_NX).index_copy_(0, flat_N, value_NX)
        return store.view(*self.now.real_BW.shape, *value_NX.shape[1:])

    def embedded(self, flat_N: Tensor) -> Tensor:
        """(N, D) embeddings of some tokens."""
        ids_N = self.cache.ids_BW.view(-1).index_select(0, flat_N)
        embedding: Tensor = self.network.embed_tokens(ids_N)
        return embedding

    def finish(self, flat_N: Tensor, hidden_ND: Tensor) -> None:
        """Keep the final hidden states of some tokens."""
        self.store(FINAL, flat_N, self.network.norm(hidden_ND))


def stale_walk(step: Step, rule: ReuseRule, chosen_BW: Tensor) -> None:
    """The chosen tokens through all layers, every other key and value as it was."""
    del rule
    tokens = Tokens.of(chosen_BW)
    turned, hidden_ND = tokens.turned(step.rotation), step.embedded(tokens.flat_N)
    for index, layer in enumerate(step.network.layers):
        step.statistics.note(index, tokens.counts, step.now)
        hidden_ND, _, _ = _pass_layer(step, index, layer, tokens, turned, hidden_ND)
    step.finish(tokens.flat_N, hidden_ND)


def _pass_layer(
    step: Step,
    index: int,
    layer: UniDiffLayer,
    tokens: Tokens,
    turned: Rotation,
    hidden_ND: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """((N, D) hidden states behind a layer, (N, H, E) queries, (B, W, G, E) keys)."""
    attention = layer.self_attn
    normal_ND = layer.input_layernorm(hidden_ND)
    query_NHE = queries(attention, normal_ND, turned)
    key_BWGE = step.store(f"key{index}", tokens.flat_N, keys(attention, normal_ND, turned))
    value_BWGE = step.store(f"value{index}", tokens.flat_N, values(attention, normal_ND))
    hidden_ND = hidden_ND + attend(
        attention, query_NHE, tokens, key_BWGE, value_BWGE, step.cache.key_mask
    )
    return hidden_ND + feed_forward(layer, hidden_ND), query_NHE, key_BWGE


def elastic_walk(step: Step, rule: ReuseRule, chosen_BW: Tensor) -> None:
    """The chosen tokens, and from above a layer whose attention drifted all tokens of that row."""
    assert isinstance(rule, ElasticReuse)
    tokens = Tokens.of(chosen_BW)
    turned, hidden_ND = tokens.turned(step.rotation), step.embedded(tokens.flat_N)
    watch = _Watch.of(step.now)
    num_layers = len(step.network.layers)
    for index, layer in enumerate(step.network.layers):
        step.statistics.note(index, tokens.counts, step.now)
        step.store(f"input{index}", tokens.flat_N, hidden_ND)
        hidden_ND, _, key_BWGE = _pass_layer(step, index, layer, tokens, turned, hidden_ND)
        if index + 1 == num_layers:
            break
        drifted_B = watch.cosine(step, index, layer, key_BWGE) < rule.gamma
        wider_BW = chosen_BW | (drifted_B[:, None] & step.now.real_BW)
        if bool((wider_BW ^ chosen_BW).any()):
            step.store(f"input{index + 1}", tokens.flat_N, hidden_ND)
            chosen_BW, tokens = wider_BW, Tokens.of(wider_BW)
            turned = tokens.turned(step.rotation)
            inputs = step.stored(f"input{index + 1}", hidden_ND)
            hidden_ND = inputs.index_select(0, tokens.flat_N)
    step.finish(tokens.flat_N, hidden_ND)


@dataclass(frozen=True)
class _Watch:
    """Which queries judge the drift: those of the positions that may be revealed.

    Attributes:
        asked: those positions.
        visible_BW: (B, W) bool, the tokens one of which is watched.
        row_B1: (B, 1) int64.
    """

    asked: Tokens
    visible_BW: Tensor
    row_B1: Tensor

    @classmethod
    def of(cls, now: Situation) -> "_Watch":
        """The situation's."""
        row_B1 = torch.arange(len(now.step_B), device=now.step_B.device)[:, None]
        return cls(Tokens.of(now.asked_BW), now.real_BW & ~now.masked_BW, row_B1)

    def cosine(self, step: Step, index: int, layer: UniDiffLayer, key_BWGE: Tensor) -> Tensor:
        """(B,) cosine of the watched token's attention with what it was; chooses the next token.

        One at a row's first step, and where no token is visible.
        """
        cache, name = step.cache, f"watched{index}"
        weight_BRW = self._weights(step, index, layer, key_BWGE, self.asked.flat_N, self.asked)
        total_BW = weight_BRW.sum(1).masked_fill(~self.visible_BW, -1.0)
        best_B = total_BW.argmax(1)
        known_B, known_BW = cache.memory(name), cache.memory(f"{name}_row")
        pair_B2 = torch.stack([best_B if known_B is None else known_B, best_B], dim=1)
        flat_N = (self.row_B1 * cache.width + pair_B2.clamp(max=cache.width - 1)).view(-1)
        row_B2W = self._weights(step, index, layer, key_BWGE, flat_N, None)
        cache.remember(name, best_B)
        cache.remember(f"{name}_row", row_B2W[:, 1])
        if known_BW is None:
            return torch.ones_like(row_B2W[:, 0, 0])
        cosine_B = torch.nn.functional.cosine_similarity(row_B2W[:, 0], known_BW, dim=1)
        is_judged_B = (step.now.step_B > 0) & self.visible_BW.any(1)
        return torch.where(is_judged_B, cosine_B, 1.0)

    def _weights(
        self,
        step: Step,
        index: int,
        layer: UniDiffLayer,
        key_BWGE: Tensor,
        flat_N: Tensor,
        tokens: Tokens | None,
    ) -> Tensor:
        """(B, R, W) attention of some tokens, by their stored layer inputs; zero behind them."""
        hidden_ND = step.cache.kept(f"input{index}").flatten(0, 1).index_select(0, flat_N)
        turned = (step.rotation[0].index_select(0, flat_N), step.rotation[1][flat_N])
        query_NHE = queries(layer.self_attn, layer.input_layernorm(hidden_ND), turned)
        if tokens is None:
            query_BRHE = query_NHE.view(len(self.row_B1), -1, *query_NHE.shape[1:])
            return attention_weights(layer.self_attn, query_BRHE, key_BWGE, step.cache.key_mask)
        weight_BRW = attention_weights(
            layer.self_attn, tokens.spread(query_NHE), key_BWGE, step.cache.key_mask
        )
        count_B = torch.tensor(tokens.counts, device=weight_BRW.device)
        is_real_BR = torch.arange(tokens.width, device=count_B.device) < count_B[:, None]
        return weight_BRW * is_real_BR[:, :, None]


def interval_walk(step: Step, rule: ReuseRule, chosen_BW: Tensor) -> None:
    """The chosen tokens, and in each layer those of the response whose values moved most.

    The residual stream of every token of the response is carried on: by what a layer adds to it
    now where the token is computed, and by what the layer added last where it is not.
    """
    assert isinstance(rule, IntervalReuse)
    now, size = step.now, step.now.real_BW.numel()
    moving = Tokens.of((now.real_BW & ~now.prompt_BW) | chosen_BW)
    flat_M = moving.flat_N
    place = torch.zeros(size, dtype=torch.int64, device=flat_M.device)
    place[flat_M] = torch.arange(len(flat_M), device=flat_M.device)
    turned_M, hidden_MD = moving.turned(step.rotation), step.embedded(flat_M)
    for index, layer in enumerate(step.network.layers):
        attention, normal_MD = layer.self_attn, layer.input_layernorm(hidden_MD)
        value_MGE = values(attention, normal_MD)
        tokens = _moved(step, f"value{index}", rule.share, chosen_BW, flat_M, value_MGE)
        step.statistics.note(index, tokens.counts, now)
        flat_N, at_N = tokens.flat_N, place[tokens.flat_N]
        turned = (turned_M[0][at_N], turned_M[1][at_N])
        normal_ND = normal_MD[at_N]
        key_BWGE = step.store(f"key{index}", flat_N, keys(attention, normal_ND, turned))
        value_BWGE = step.store(f"value{index}", flat_N, value_MGE[at_N])
        query_NHE = queries(attention, normal_ND, turned)
        out_ND = attend(attention, query_NHE, tokens, key_BWGE, value_BWGE, step.cache.key_mask)
        step.store(f"attention{index}", flat_N, out_ND)
        step.store(f"mlp{index}", flat_N, feed_forward(layer, hidden_MD[at_N] + out_ND))
        hidden_MD = hidden_MD + step.stored(f"attention{index}", out_ND)[flat_M]
        hidden_MD = hidden_MD + step.stored(f"mlp{index}", out_ND)[flat_M]
    step.finish(flat_M, hidden_MD)


def _moved(
    step: Step, name: str, share: float, chosen_BW: Tensor, flat_M: Tensor, value_MGE: Tensor
) -> Tokens:
    """The chosen tokens, and `share` of each row's others of least cosine to their stored value."""
    now = step.now
    others_BW = now.real_BW & ~now.prompt_BW & ~chosen_BW
    wanted_B = (others_BW.sum(1) * share).ceil()
    if not bool(wanted_B.any()):
        return Tokens.of(chosen_BW)
    stored_MGE = step.stored(name, value_MGE).index_select(0, flat_M)
    cosine_M = torch.nn.functional.cosine_similarity(
        value_MGE.flatten(1), stored_MGE.flatten(1), dim=1
    )
    cosine_BW = torch.full(now.real_BW.shape, torch.inf, dtype=cosine_M.dtype)
    cosine_BW = cosine_BW.to(cosine_M.device)
    cosine_BW.view(-1)[flat_M] = cosine_M
    cosine_BW = cosine_BW.masked_fill(~others_BW, torch.inf)
    order_BW = cosine_BW.argsort(dim=1, stable=True)
    rank_BW = torch.empty_like(order_BW).scatter_(
        1, order_BW, torch.arange(now.real_BW.shape[1], device=order_BW.device).expand_as(order_BW)
    )
    return Tokens.of(chosen_BW | (others_BW & (rank_BW < wanted_B[:, None])))


Walk = Callable[[Step, ReuseRule, Tensor], None]
WALKS: dict[type[Any], Walk] = {ElasticReuse: elastic_walk, IntervalReuse: interval_walk}
