"""Which tokens an approximate cache recomputes at a step: one small rule for each kind.

A rule sees what a probe shows of each row and answers with the tokens that every layer computes
anew; the keys and values of the others stay as they were. Two kinds say more, layer by layer
(`reuse_walks.py`): `interval` picks further tokens by how far their values moved, and `elastic`
widens to whole rows above a layer whose attention drifted. Checked in tests/model/test_reuse.py.
"""

# Shapes: B rows, W canvas.

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

DELAYED_INTERVAL = 8  # within the 4 to 16 of dKV-Cache (arXiv 2505.15781)
RESPONSE_INTERVAL = 7  # dLLM-Cache (arXiv 2506.06295)


@dataclass(frozen=True)
class Situation:
    """What a probe shows of each row, and what the cache remembers of earlier ones.

    Attributes:
        real_BW: (B, W) bool, tokens of the row's canvas.
        asked_BW: (B, W) bool, positions whose prediction is wanted: those that may be revealed.
        masked_BW: (B, W) bool, tokens that show the mask id.
        changed_BW: (B, W) bool, tokens with another id than at the row's last probe.
        prompt_BW: (B, W) bool, tokens before the first position ever asked for.
        start_B: (B,) int64, first position of the open block.
        stop_B: (B,) int64, behind its last one.
        opens_B: (B,) bool, rows at the first step of a block.
        step_B: (B,) int64, probes of the row before this one.
    """

    real_BW: Tensor
    asked_BW: Tensor
    masked_BW: Tensor
    changed_BW: Tensor
    prompt_BW: Tensor
    start_B: Tensor
    stop_B: Tensor
    opens_B: Tensor
    step_B: Tensor

    def every(self, interval: int | None) -> Tensor:
        """(B,) bool, rows at their first step or a multiple of `interval` steps behind it."""
        if interval is None:
            return self.step_B == 0
        return self.step_B % interval == 0

    @property
    def behind_start(self) -> Tensor:
        """(B, W) bool, the open block and everything behind it."""
        offset_W = torch.arange(self.real_BW.shape[1], device=self.real_BW.device)
        return offset_W >= self.start_B[:, None]

    @property
    def open_block(self) -> Tensor:
        """(B, W) bool, the open block."""
        offset_W = torch.arange(self.real_BW.shape[1], device=self.real_BW.device)
        return self.behind_start & (offset_W < self.stop_B[:, None])


class ReuseRule(Protocol):
    """Which tokens are computed anew at a step."""

    def recompute(self, now: Situation) -> Tensor:
        """(B, W) bool, tokens that every layer computes; others may be added, none left out."""
        ...


@dataclass(frozen=True)
class PrefixReuse:
    """The keys before the open block are kept from the block's first step.

    Attributes:
        interval: also refresh everything every so many steps of a row; None: never.

    Source: Fast-dLLM (arXiv 2505.22618), prefix cache.
    """

    interval: int | None = None

    def recompute(self, now: Situation) -> Tensor:
        """Everything at a block's first step, then the block and what lies behind it."""
        return now.behind_start | (now.opens_B | now.every(self.interval))[:, None]


@dataclass(frozen=True)
class DualReuse:
    """The keys before and behind the open block are kept from the block's first step.

    Attributes:
        interval: as in `PrefixReuse`.

    Source: Fast-dLLM (arXiv 2505.22618), dual cache.
    """

    interval: int | None = None

    def recompute(self, now: Situation) -> Tensor:
        """Everything at a block's first step, then the block alone."""
        return now.open_block | (now.opens_B | now.every(self.interval))[:, None]


@dataclass(frozen=True)
class DelayedReuse:
    """A token is kept once it has been computed with its own id, one step after its reveal.

    Attributes:
        interval: steps between refreshes of everything.

    Source: dKV-Cache (arXiv 2505.15781), decoding with one step of delay.
    """

    interval: int = DELAYED_INTERVAL

    def recompute(self, now: Situation) -> Tensor:
        """The masked tokens and those just revealed; everything every `interval` steps."""
        chosen_BW = now.masked_BW | now.changed_BW | now.asked_BW
        return chosen_BW | now.every(self.interval)[:, None]


@dataclass(frozen=True)
class IntervalReuse:
    """Prompt and response are refreshed at intervals; in between, what moved most is.

    Attributes:
        interval: steps between refreshes of the response.
        prompt_interval: steps between refreshes of the prompt.
        share: of the response's tokens, recomputed in each layer at the steps in between.

    Source: dLLM-Cache (arXiv 2506.06295).
    """

    interval: int = RESPONSE_INTERVAL
    prompt_interval: int = 100
    share: float = 0.25

    def recompute(self, now: Situation) -> Tensor:
        """The prompt at its interval, the response at its own."""
        prompt_BW = now.prompt_BW & now.every(self.prompt_interval)[:, None]
        return prompt_BW | (~now.prompt_BW & now.every(self.interval)[:, None])


@dataclass(frozen=True)
class ElasticReuse:
    """Masked positions next to the text are recomputed; all else when attention drifts.

    Attributes:
        interval: also refresh everything every so many steps of a row; None: never.
        gamma: least cosine between the attention of a layer's most attended token and what it was
            a step before; below it, the layers above are refreshed. What lies below the first layer
            never changes, so its cosine is one: above 1, every layer is refreshed at every step.
        window: leftmost masked positions that are recomputed at every step, besides those that may
            be revealed and those just revealed; None: no others.

    Source: Elastic-Cache (arXiv 2510.14973); that gamma above 1 refreshes the first layer too, and
        so gives up no exactness, is our own reading.
    """

    interval: int | None = None
    gamma: float = 0.9
    window: int | None = None

    def recompute(self, now: Situation) -> Tensor:
        """The window and the tokens just revealed; everything at a row's first step."""
        chosen_BW = now.asked_BW | now.changed_BW
        if self.window is not None:
            chosen_BW = chosen_BW | (now.masked_BW & (now.masked_BW.cumsum(1) <= self.window))
        if self.gamma > 1.0:
            return torch.ones_like(chosen_BW)
        return chosen_BW | now.every(self.interval)[:, None]


def reuse_rule(options: Mapping[str, Any]) -> ReuseRule:
    """The rule that `cache_reuse` and its options describe; the kind must be an approximate one."""
    kind, interval = options["cache_reuse"], options["reuse_interval"]
    if kind == "prefix":
        return PrefixReuse(interval)
    if kind == "dual":
        return DualReuse(interval)
    if kind == "delayed":
        return DelayedReuse(interval or DELAYED_INTERVAL)
    if kind == "interval":
        prompt_interval, share = options["reuse_prompt_interval"], options["reuse_share"]
        return IntervalReuse(interval or RESPONSE_INTERVAL, prompt_interval, share)
    assert kind == "elastic"
    return ElasticReuse(interval, options["reuse_gamma"], options["reuse_window"])
