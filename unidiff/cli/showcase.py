"""What the demonstration shows: one row for everything asked of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unidiff.data.sources.held_out import Picture
from unidiff.plugins.answer import Answer


@dataclass(frozen=True)
class Row:
    """One thing asked of the model.

    Attributes:
        task: what it is an example of.
        given: what the model was told.
        output: what it said or did.
        truth: what is right.
        is_right: whether it was; None where nobody can say.
        num_forwards: NFE.
        tokens_per_forward: tokens up to the end token / NFE.
        seconds: wall time.
        pictures: what the gallery shows of it, left to right.
        labels: a word over each picture, where there are three.
    """

    task: str
    given: str
    output: str
    truth: str
    is_right: bool | None
    num_forwards: int
    tokens_per_forward: float
    seconds: float
    pictures: tuple[Picture, ...] = ()
    labels: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        task: str,
        given: str,
        answer: Answer,
        truth: str,
        is_right: bool | None,
        pictures: Sequence[Picture] = (),
        output: str | None = None,
        labels: Sequence[str] = (),
    ) -> "Row":
        """Row of one answer; its text is the output unless another is given."""
        return cls(
            task=task,
            given=given,
            output=str(answer.value) if output is None else output,
            truth=truth,
            is_right=is_right,
            num_forwards=answer.num_forwards,
            tokens_per_forward=answer.tokens_per_forward,
            seconds=answer.seconds,
            pictures=tuple(pictures),
            labels=tuple(labels),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "task": self.task,
            "input": self.given,
            "output": self.output,
            "truth": self.truth,
            "is_right": self.is_right,
            "num_forwards": self.num_forwards,
            "tokens_per_forward": round(self.tokens_per_forward, 3),
            "seconds": round(self.seconds, 3),
        }
