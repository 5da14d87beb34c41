"""What happened when: the step that revealed each token of a row, and how certain it was."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trace:
    """The reveals of one row, in the order of its steps.

    Attributes:
        step: forward of the row (from 1) that revealed the token.
        index: place of the token in the response, or in the caller's canvas.
        token_id: the token.
        confidence: what the strategy ranked it by, in [0, 1]; its probability in modes that rank
            nothing.
    """

    step: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    token_id: list[int] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.step)

    def __iter__(self) -> Iterator[tuple[int, int, int, float]]:
        """(step, index, token id, confidence) of each reveal."""
        return zip(self.step, self.index, self.token_id, self.confidence, strict=True)

    def note(self, step: int, index: int, token_id: int, confidence: float) -> None:
        """Add one reveal."""
        self.step.append(step)
        self.index.append(index)
        self.token_id.append(token_id)
        self.confidence.append(confidence)

    def keep(self, length: int) -> None:
        """Forget reveals from place `length` on: what was cut off behind the end of the row."""
        kept = [reveal for reveal in self if reveal[1] < length]
        columns: Sequence[list[Any]] = [list(column) for column in zip(*kept, strict=True)]
        self.step, self.index, self.token_id, self.confidence = columns or ([], [], [], [])

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain lists for JSON."""
        return {
            "step": self.step,
            "index": self.index,
            "token_id": self.token_id,
            "confidence": self.confidence,
        }
