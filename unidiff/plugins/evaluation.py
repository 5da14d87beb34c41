"""A measurement that a task brings of its own: what its metrics on examples cannot say.

`unidiff eval TASK` runs it in place of the metrics. Knows nothing of what is measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# (what is under way, units done, units in all).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluationRequest:
    """What was asked for on the command line.

    Attributes:
        checkpoint: folder; None: the one that fits what is measured.
        device: "auto", "cpu", "cuda" ...
        limit: inputs of each part; None: the evaluation's own number.
        seed: of every random choice.
        settings: name -> value, as it was typed behind `--set`.
        cells: folder in which finished parts are kept, so that an interrupted run goes on; None:
            nothing is kept.
        progress: is told how far it is.
    """

    checkpoint: Path | None = None
    device: str = "auto"
    limit: int | None = None
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    cells: Path | None = None
    progress: Progress = lambda label, done, total: None


@dataclass(frozen=True)
class EvaluationReport:
    """What was found.

    Attributes:
        report: for JSON.
        table: the same in Markdown, for people.
        problem: what keeps it from being a whole answer, said after it with exit code 2; None:
            nothing does.
    """

    report: Mapping[str, Any]
    table: str
    problem: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """A task's own measurement.

    Attributes:
        settings: name -> meaning of each setting that `--set` may give.
        measure: does it.
    """

    settings: Mapping[str, str]
    measure: Callable[[EvaluationRequest], EvaluationReport]

    def check_settings(self, given: Mapping[str, str]) -> None:
        """Raise ValueError if a setting is unknown; says what there is."""
        if unknown := sorted(set(given) - set(self.settings)):
            known = "; ".join(f"{name}: {meaning}" for name, meaning in self.settings.items())
            raise ValueError(f"unknown settings {unknown}; there are {known}")
