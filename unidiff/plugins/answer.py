"""One answer of a model, and what it cost."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer and its cost.

    Attributes:
        value: what `parse` made of it: str, PIL image, array, or a dictionary of them.
        num_forwards: NFE.
        tokens_per_forward: tokens up to the end token / NFE.
        seconds: wall time of the batch, shared by its rows.
        finish_reason: "stop", "length" or "canvas".
        seed: repeats this answer alone.
    """

    value: Any
    num_forwards: int
    tokens_per_forward: float
    seconds: float
    finish_reason: str
    seed: int

    @property
    def num_tokens(self) -> float:
        """Tokens up to the end token."""
        return self.tokens_per_forward * self.num_forwards

    def cost(self) -> dict[str, Any]:
        """The cost as plain numbers."""
        return {
            "num_forwards": self.num_forwards,
            "tokens_per_forward": round(self.tokens_per_forward, 3),
            "seconds": round(self.seconds, 4),
            "finish_reason": self.finish_reason,
            "seed": self.seed,
        }
