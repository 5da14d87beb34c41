"""What approximate reuse computed and what it left: counts of one decoding, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .reuse_rules import Situation


@dataclass
class ReuseStatistics:
    """Counts over the probes of one `generate`.

    Attributes:
        num_layers: of the model.
        num_probes: forwards.
        num_row_probes: forwards times rows that were still being decoded.
        num_tokens: tokens that a decoding without reuse computes in each layer.
        computed: tokens computed in each layer.
        refreshed: row probes in which a layer computed every token of the row.
    """

    num_layers: int
    num_probes: int = 0
    num_row_probes: int = 0
    num_tokens: int = 0
    computed: list[int] = field(default_factory=list)
    refreshed: list[int] = field(default_factory=list)
    _lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Zeros for every layer."""
        self.computed = self.computed or [0] * self.num_layers
        self.refreshed = self.refreshed or [0] * self.num_layers

    def note(self, layer: int, counts: Sequence[int], now: Situation) -> None:
        """Count one layer of a probe: `counts` tokens were computed in its rows."""
        if layer == 0:
            self._lengths = tuple(now.real_BW.sum(1).tolist())
            self.num_probes += 1
            self.num_row_probes += sum(length > 0 for length in self._lengths)
            self.num_tokens += sum(self._lengths)
        self.computed[layer] += sum(counts)
        pairs = zip(counts, self._lengths, strict=True)
        self.refreshed[layer] += sum(count == length > 0 for count, length in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Numbers for a report: tokens a step and shares, layer by layer."""
        tokens, rows = max(1, self.num_tokens), max(1, self.num_row_probes)
        mean = sum(self.computed) / self.num_layers
        return {
            "num_forwards": self.num_probes,
            "tokens_computed_per_row_and_step": mean / rows,
            "tokens_without_reuse_per_row_and_step": self.num_tokens / rows,
            "share_computed": mean / tokens,
            "share_computed_per_layer": [count / tokens for count in self.computed],
            "refresh_rate_per_layer": [count / rows for count in self.refreshed],
        }
