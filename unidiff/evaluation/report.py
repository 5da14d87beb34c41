"""What a measurement is, what is asked of it, and the report of a suite."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Goal:
    """What a number is compared with.

    Attributes:
        aim: where the project wants it.
        floor: where it fails.
        better: "higher" or "lower".
    """

    aim: float
    floor: float
    better: str = "higher"

    def __post_init__(self) -> None:
        """Check the direction."""
        if self.better not in ("higher", "lower"):
            raise ValueError(f"better must be 'higher' or 'lower', got {self.better!r}")

    def is_met(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side of `bound` (`aim` or `floor`), or equal to it."""
        return value >= bound if self.better == "higher" else value <= bound


@dataclass(frozen=True)
class Measurement:
    """One number as a metric returns it.

    Attributes:
        name: of the metric.
        value: the number.
        num_inputs: photographs, questions, drawings, episodes or windows that it is the mean of.
        interval: 95 % confidence interval of `value`.
        details: parts of the number, baselines and ceilings.
        conditions: what has to hold besides the floor, by what it says.
        aim: an aim that is itself measured; replaces the suite's.
    """

    name: str
    value: float
    num_inputs: int
    interval: tuple[float, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, bool] = field(default_factory=dict)
    aim: float | None = None


@dataclass(frozen=True)
class MetricReport:
    """A measurement, how it was made, what it cost, and whether it is good enough.

    Attributes:
        measurement: the number.
        goal: aim and floor; None if there is none.
        sampler: options of `generate()`, or of the likelihood.
        seed: decides inputs and sampling.
        seconds: wall time of the group of metrics that were measured together.
        cpu_seconds: processor time of the same.
        num_forwards: forwards of all requests of the group, summed.
        forwards_per_input: mean over requests (NFE).
        tokens_per_forward: mean over requests.
    """

    measurement: Measurement
    goal: Goal | None
    sampler: Mapping[str, Any]
    seed: int
    seconds: float
    cpu_seconds: float
    num_forwards: int
    forwards_per_input: float
    tokens_per_forward: float

    @property
    def passes(self) -> bool:
        """Whether the floor and every condition is met."""
        is_met = self.goal is None or self.goal.is_met(self.measurement.value, self.goal.floor)
        return bool(is_met) and all(map(bool, self.measurement.conditions.values()))

    @property
    def reaches_aim(self) -> bool:
        """Whether the aim is met as well."""
        if self.goal is None:
            return self.passes
        aim = self.goal.aim if self.measurement.aim is None else self.measurement.aim
        return self.passes and bool(self.goal.is_met(self.measurement.value, aim))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        found = plain(asdict(self.measurement))
        measured_aim = found.pop("aim")
        goal = {} if self.goal is None else asdict(self.goal)
        if measured_aim is not None:
            goal["aim"] = measured_aim
        return {
            **found,
            **goal,
            "passes": self.passes,
            "reaches_aim": self.reaches_aim,
            "seed": self.seed,
            "sampler": dict(self.sampler),
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "num_forwards": self.num_forwards,
            "forwards_per_input": round(self.forwards_per_input, 3),
            "tokens_per_forward": round(self.tokens_per_forward, 3),
        }


@dataclass(frozen=True)
class SuiteReport:
    """Everything that a run of a suite found.

    Attributes:
        suite: name.
        seed: of the run.
        limit: largest number of inputs of a metric; None: the suite's own numbers.
        metrics: one report per metric, in the suite's order.
        environment: model, threads and versions.
        seconds: wall time of the whole run.
    """

    suite: str
    seed: int
    limit: int | None
    metrics: tuple[MetricReport, ...]
    environment: Mapping[str, Any]
    seconds: float

    @property
    def passes(self) -> bool:
        """Whether every metric passes."""
        return all(report.passes for report in self.metrics)

    def __getitem__(self, name: str) -> MetricReport:
        """Report of one metric; raises KeyError if it was not measured."""
        for report in self.metrics:
            if report.measurement.name == name:
                return report
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "suite": self.suite,
            "seed": self.seed,
            "limit": self.limit,
            "passes": self.passes,
            "seconds": round(self.seconds, 1),
            "environment": dict(self.environment),
            "metrics": {report.measurement.name: report.to_dict() for report in self.metrics},
        }


def plain(value: Any) -> Any:
    """The value with numpy's numbers and tuples as Python's, for JSON; fractions to 6 digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6)
    return value.item() if isinstance(value, np.generic) else value
