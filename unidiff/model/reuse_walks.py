"""The three ways through the layers with stale keys: alike in every layer, drifting, by features.

A walk computes the chosen tokens, writes their keys and values over the stored ones and gives back
the final hidden states of the tokens that are asked for predictions. Behind the last layer's keys
nobody but these is needed.
"""

# Shapes: B rows, W canvas, N chosen tokens, M moving tokens, A asked tokens, R chosen tokens of a
# row, D width, H heads, G key-value heads, E head dim.

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from .layers import UniDiffLayer
from .modulation import Part
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
from .soft_positions import embedded, soft_mask

if TYPE_CHECKING:
    from .modeling import UniDiffModel


@dataclass(frozen=True)
class Step:
    """One probe on its way through the layers.

    Attributes:
        network: embedding, layers and final norm.
        cache: what is kept; written to.
        now: the situation.
        asked: tokens whose final hidden states are wanted.
        position_3BW: (3, B, W) int64, where the tokens stand.
        rotation: cosine and sine of every token, each (B * W, 1, E).
        statistics: counts what is computed.
    """

    network: "UniDiffModel"
    cache: ReuseCache
    now: Situation
    asked: Tokens
    position_3BW: Tensor
    rotation: Rotation
    statistics: ReuseStatistics

    def layer(self, index: int) -> UniDiffLayer:
        """A layer by its number."""
        return cast("UniDiffLayer", self.network.layers[index])

    def parts(self, index: int) -> tuple[Part, Part]:
        """What stands around a layer's attention and MLP."""
        return self.layer(index).parts(self._condition_C)

    def finish(self, hidden_AD: Tensor) -> Tensor:
        """(A, D) final hidden states of the residual stream."""
        return self.network.finish(hidden_AD, self._condition_C)

    @cached_property
    def _condition_C(self) -> Tensor | None:
        """(C,) vector that moves adaptive norms."""
        return self.network.condition_vector()

    def stored(self, name: str, like_NX: Tensor) -> Tensor:
        """(B * W, ...) feature of every token, of the shape and type of some tokens' own."""
        return self.cache.feature(name, *like_NX.shape[1:], like=like_NX)

    def store(self, name: str, flat_N: Tensor, value_NX: Tensor) -> Tensor:
        """The feature after some tokens' values were written into it, (B, W, ...)."""
        store = self.stored(name, value_NX).index_copy_(0, flat_N, value_NX)
        return store.view(*self.now.real_BW.shape, *value_NX.shape[1:])

    def embedded(self, flat_N: Tensor) -> Tensor:
        """(N, D) embeddings of some tokens."""
        ids_BW, soft, network = self.cache.ids_BW, self.cache.soft, self.network
        embedding: Tensor
        if any(one is not None for one in soft):
            is_soft_BW = soft_mask(ids_BW, network.config.layout.soft_token_id)
            whole_BWD = embedded(network.embed_tokens, ids_BW, is_soft_BW, soft)
            embedding = whole_BWD.flatten(0, 1).index_select(0, flat_N)
        else:
            embedding = network.embed_tokens(ids_BW.view(-1).index_select(0, flat_N))
        if network.embed_inputs is not None:
            time_N = self.position_3BW[0].reshape(-1).index_select(0, flat_N)
            embedding = network.embed_inputs(embedding, time_N)
        return embedding

    def places(self, flat_N: Tensor) -> Tensor:
        """(B * W,) place of each token among the given ones; 0 for the others."""
        place = torch.zeros(self.now.real_BW.numel(), dtype=torch.int64, device=flat_N.device)
        return place.index_copy_(0, flat_N, torch.arange(len(flat_N), device=flat_N.device))


def stale_walk(step: Step, rule: ReuseRule, chosen_BW: Tensor) -> Tensor:
    """(A, D) hidden states; the chosen tokens pass all layers, other keys stay as they were."""
    del rule
    layers = step.network.layers
    walkers = _Walkers.of(step, Tokens.of(chosen_BW))
    hidden_ND = step.embedded(walkers.tokens.flat_N)
    for index in range(len(layers) - 1):
        hidden_ND = walkers.through(index, hidden_ND).hidden_ND
    return walkers.through_last(len(layers) - 1, hidden_ND)


@dataclass(frozen=True)
class _Passed:
    """What a layer gave: hidden states behind it, and the queries and keys inside."""

    hidden_ND: Tensor
    query_NHE: Tensor
    key_BWGE: Tensor


@dataclass(frozen=True)
class _Walkers:
    """The tokens on their way, and their rotation.

    Attributes:
        step: the probe.
        tokens: who is computed.
        turned: cosine and sine of these, each (N, 1, E).
        at_A: (A,) place of each asked token among them.
    """

    step: Step
    tokens: Tokens
    turned: Rotation
    at_A: Tensor

    @classmethod
    def of(cls, step: Step, tokens: Tokens) -> "_Walkers":
        """Tokens that hold all that are asked."""
        at_A = step.places(tokens.flat_N).index_select(0, step.asked.flat_N)
        return cls(step, tokens, tokens.turned(step.rotation), at_A)

    def through(self, index: int, hidden_ND: Tensor) -> _Passed:
        """All of them through one layer."""
        layer, (before, behind) = self.step.layer(index), self.step.parts(index)
        attention = layer.self_attn
        normal_ND, stored = self._stored(index, before, hidden_ND)
        query_NHE = queries(attention, normal_ND, self.turned)
        out_ND = attend(attention, query_NHE, self.tokens, *stored, self.step.cache.key_mask)
        joined_ND = before.join(hidden_ND, out_ND)
        hidden_ND = behind.join(joined_ND, feed_forward(layer, behind, hidden_ND, joined_ND))
        return _Passed(hidden_ND, query_NHE, stored[0])

    def through_last(self, index: int, hidden_ND: Tensor) -> Tensor:
        """(A, D) final hidden states: keys of all, the rest of the layer for who is asked."""
        layer, (before, behind) = self.step.layer(index), self.step.parts(index)
        attention, asked = layer.self_attn, self.step.asked
        normal_ND, stored = self._stored(index, before, hidden_ND)
        turned = asked.turned(self.step.rotation)
        query_AHE = queries(attention, normal_ND.index_select(0, self.at_A), turned)
        out_AD = attend(attention, query_AHE, asked, *stored, self.step.cache.key_mask)
        hidden_AD = hidden_ND.index_select(0, self.at_A)
        joined_AD = before.join(hidden_AD, out_AD)
        output_AD = feed_forward(layer, behind, hidden_AD, joined_AD)
        return self.step.finish(behind.join(joined_AD, output_AD))

    def _stored(
        self, index: int, before: Part, hidden_ND: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """((N, D) normalised input, all keys and values after theirs were written)."""
        self.step.statistics.note(index, self.tokens.counts, self.step.now)
        attention, flat_N = self.step.layer(index).self_attn, self.tokens.flat_N
        normal_ND = before.enter(hidden_ND)
        key_NGE, value_NGE = keys(attention, normal_ND, self.turned), values(attention, normal_ND)
        key_BWGE = self.step.store(f"key{index}", flat_N, key_NGE)
        return normal_ND, (key_BWGE, self.step.store(f"value{index}", flat_N, value_NGE))


def elastic_walk(step: Step, rule: ReuseRule, chosen_BW: Tensor) -> Tensor:
    """(A, D) hidden states; above a layer whose attention drifted the whole row is computed."""
    assert isinstance(rule, ElasticReuse)
    walkers = _Walkers.of(step, Tokens.of(chosen_BW))
    hidden_ND = step.embedded(walkers.tokens.flat_N)
    visible_BW = step.now.real_BW & ~step.now.masked_BW
    last = len(step.network.layers) - 1
    for index in range(last):
        passed = walkers.through(index, hidden_ND)
        hidden_ND, flat_N = passed.hidden_ND, walkers.tokens.flat_N
        step.store(f"query{index}", flat_N, passed.query_NHE)
        step.store(f"output{index}", flat_N, hidden_ND)
        cosine_B = _watched_cosine(step, index, passed, walkers.at_A, visible_BW)
        wider_BW = chosen_BW | ((cosine_B < rule.gamma)[:, None] & step.now.real_BW)
        if not torch.equal(wider_BW, chosen_BW):
            chosen_BW = wider_BW
            walkers = _Walkers.of(step, Tokens.of(chosen_BW))
            outputs = step.stored(f"output{index}", hidden_ND)
            hidden_ND = outputs.index_select(0, walkers.tokens.flat_N)
    return walkers.through_last(last, hidden_ND)


def _watched_cosine(
    step: Step, index: int, passed: _Passed, at_A: Tensor, visible_BW: Tensor
) -> Tensor:
    """(B,) cosine of the watched token's attention with what it was; watches the next one.

    The next is the visible token that the asked positions attend to most. One at a row's first
    step, and where no token is visible.
    """
    cache, name = step.cache, f"watched{index}"
    asked_BRHE = step.asked.spread(passed.query_NHE.index_select(0, at_A))
    weight_BHRW = attention_weights(asked_BRHE, passed.key_BWGE, cache.key_mask)
    if step.asked.slot_N is not None:
        weight_BHRW = weight_BHRW * step.asked.are_real(at_A.device)[:, None, :, None]
    total_BW = weight_BHRW.sum((1, 2)).masked_fill(~visible_BW, -1.0)
    best_B = total_BW.argmax(1)
    known_B, known_BW = cache.memory(name), cache.memory(f"{name}_row")
    pair_B2 = torch.stack([best_B if known_B is None else known_B, best_B], dim=1)
    row_B1 = torch.arange(len(best_B), device=best_B.device)[:, None]
    flat_N = (row_B1 * cache.width + pair_B2.clamp(max=cache.width - 1)).view(-1)
    query_NHE = step.stored(f"query{index}", passed.query_NHE).index_select(0, flat_N)
    pair_B2HE = query_NHE.view(len(best_B), 2, *query_NHE.shape[1:])
    row_B2W = attention_weights(pair_B2HE, passed.key_BWGE, cache.key_mask).mean(1)
    cache.remember(name, best_B)
    cache.remember(f"{name}_row", row_B2W[:, 1])
    if known_BW is None:
        return torch.ones_like(row_B2W[:, 0, 0])
    cosine_B = _cosine(row_B2W[:, 0], known_BW)
    is_judged_B = (step.now.step_B > 0) & visible_BW.any(1)
    return torch.where(is_judged_B, cosine_B, 1.0)


def interval_walk(step: Step, rule: ReuseRule, chosen_BW: Tensor) -> Tensor:
    """(A, D) hidden states; each layer also computes those of the response that moved most.

    The residual stream of every token of the response is carried on: by what a layer adds to it
    now where the token is computed, and by what the layer added last where it is not.
    """
    assert isinstance(rule, IntervalReuse)
    now = step.now
    moving = Tokens.of((now.real_BW & ~now.prompt_BW) | chosen_BW)
    flat_M = moving.flat_N
    place = step.places(flat_M)
    turned_M, hidden_MD = moving.turned(step.rotation), step.embedded(flat_M)
    for index in range(len(step.network.layers)):
        layer, (before, behind) = step.layer(index), step.parts(index)
        attention, normal_MD = layer.self_attn, before.enter(hidden_MD)
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
        joined_ND = before.join(hidden_MD[at_N], out_ND)
        output_ND = feed_forward(layer, behind, hidden_MD[at_N], joined_ND)
        step.store(f"mlp{index}", flat_N, output_ND)
        joined_MD = before.join(hidden_MD, step.stored(f"attention{index}", out_ND)[flat_M])
        hidden_MD = behind.join(joined_MD, step.stored(f"mlp{index}", out_ND)[flat_M])
    return step.finish(hidden_MD[place[step.asked.flat_N]])


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
    cosine_M = _cosine(value_MGE.flatten(1), stored_MGE.flatten(1))
    cosine_BW = cosine_M.new_zeros(now.real_BW.shape)
    cosine_BW.view(-1).index_copy_(0, flat_M, cosine_M)
    cosine_BW = cosine_BW.masked_fill(~others_BW, torch.inf)
    order_BW = cosine_BW.argsort(dim=1, stable=True)
    rank_BW = torch.empty_like(order_BW).scatter_(
        1, order_BW, torch.arange(now.real_BW.shape[1], device=order_BW.device).expand_as(order_BW)
    )
    return Tokens.of(chosen_BW | (others_BW & (rank_BW < wanted_B[:, None])))


def _cosine(first_NX: Tensor, second_NX: Tensor) -> Tensor:
    """(N,) cosine to five decimals: what did not move is 1 in any batch, not 1 plus rounding."""
    return torch.nn.functional.cosine_similarity(first_NX, second_NX, dim=1).round(decimals=5)


Walk = Callable[[Step, ReuseRule, Tensor], Tensor]
WALKS: dict[type[Any], Walk] = {ElasticReuse: elastic_walk, IntervalReuse: interval_walk}
