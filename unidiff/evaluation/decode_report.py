"""Ratios of decoders out of timings: medians over interleaved pairs, beside floor and aim."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .decode_setup import DecodeSetup
from .load_guard import Load
from .report import Goal

LOOP_OVERHEAD = "loop_overhead"


@dataclass(frozen=True)
class Timing:
    """One decode of one contestant.

    Attributes:
        seconds: of the whole call.
        prefill_seconds: of a call that only reads the prompt; 0 where there is none.
        num_tokens: generated, all rows together.
        num_tokens_after_prefill: those that did not come out of the prefill.
        num_forwards: of the model, commits included.
        forward_seconds: inside our model's forwards, head included; None for peers.
        load: how busy the machine was.
    """

    seconds: float
    prefill_seconds: float
    num_tokens: int
    num_tokens_after_prefill: int
    num_forwards: int
    forward_seconds: float | None
    load: Load

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Timing":
        """Timing of `dataclasses.asdict`'s dictionary, also after it went through JSON."""
        return cls(**{**values, "load": Load(**values["load"])})

    @property
    def rate(self) -> float:
        """Tokens per second after the prefill."""
        return self.num_tokens_after_prefill / (self.seconds - self.prefill_seconds)

    @property
    def end_to_end_rate(self) -> float:
        """Tokens per second of the whole call."""
        return self.num_tokens / self.seconds

    @property
    def loop_overhead(self) -> float | None:
        """Share of the time after the prefill spent outside the forwards; None for peers.

        What the call does before its first forward counts as well.
        """
        if self.forward_seconds is None:
            return None
        return (self.seconds - self.forward_seconds) / (self.seconds - self.prefill_seconds)


Round = Mapping[str, Timing]


@dataclass(frozen=True)
class Ratio:
    """A number of the report: one contestant's rate over another's, or a contestant's overhead.

    Attributes:
        name: in the report.
        over: contestant whose rate is the numerator, or whose overhead is meant.
        under: contestant whose rate is the denominator; None for an overhead.
    """

    name: str
    over: str
    under: str | None

    @property
    def contestants(self) -> list[str]:
        """Those it needs."""
        return [self.over] if self.under is None else [self.over, self.under]

    def of(self, one: Round, rate: Callable[[Timing], float] = lambda t: t.rate) -> float | None:
        """Its value in one round; None if a contestant is missing."""
        if any(name not in one for name in self.contestants):
            return None
        if self.under is None:
            return one[self.over].loop_overhead
        return rate(one[self.over]) / rate(one[self.under])

    def is_calm(self, one: Round) -> bool:
        """Whether the machine was calm while its contestants ran in this round."""
        return all(name in one and one[name].load.is_calm for name in self.contestants)


def ratios_of(setup: DecodeSetup) -> list[Ratio]:
    """Every ratio of a setup."""
    first, rows = setup.steps[0], setup.batches[0]
    ours = f"unidiff_s{first}"
    found = [Ratio(f"vs_ar_s{s}", f"unidiff_s{s}", "transformers_ar") for s in setup.steps]
    found += [Ratio(f"vs_own_ar_s{s}", f"unidiff_s{s}", "unidiff_ar") for s in setup.steps]
    for batch in setup.batches:
        same = ours if batch == rows else f"{ours}_b{batch}"
        found.append(Ratio(f"vs_diffusion_gemma_b{batch}", same, f"diffusion_gemma_b{batch}"))
    found.append(Ratio(f"vs_uncached_s{first}", ours, f"uncached_s{first}"))
    found.append(Ratio(f"fused_vs_separate_s{first}", ours, f"unidiff_separate_s{first}"))
    return [*found, Ratio(LOOP_OVERHEAD, ours, None)]


def pairs_of(ratio: Ratio, rounds: Sequence[Round]) -> tuple[list[float], list[float]]:
    """(all, calm) values of a ratio over the rounds that have its contestants."""
    everything, calm = [], []
    for one in rounds:
        value = ratio.of(one)
        if value is not None:
            everything.append(value)
            if ratio.is_calm(one):
                calm.append(value)
    return everything, calm


def summarise_ratio(
    ratio: Ratio, rounds: Sequence[Round], wanted: int, goal: Goal | None
) -> dict[str, Any] | None:
    """The ratio's median, its pairs and its goal; None without a pair.

    The median is over the calm pairs where there are as many as `wanted`, else over all pairs.
    """
    everything, calm = pairs_of(ratio, rounds)
    if not everything:
        return None
    is_calm = len(calm) >= wanted
    value = statistics.median(calm if is_calm else everything)
    summary: dict[str, Any] = {
        "value": value,
        "of": ratio.contestants,
        "pairs": everything,
        "num_calm": len(calm),
        "is_calm": is_calm,
    }
    if ratio.under is not None:
        whole = [ratio.of(one, lambda t: t.end_to_end_rate) for one in rounds]
        summary["end_to_end"] = statistics.median(v for v in whole if v is not None)
    if goal is not None:
        summary |= asdict(goal)
        summary["passes"] = goal.is_met(value, goal.floor)
        summary["reaches_aim"] = goal.is_met(value, goal.aim)
    return summary


def summarise_contestant(timings: Sequence[Timing]) -> dict[str, Any]:
    """Medians over all timings of one contestant."""
    overheads = [t.loop_overhead for t in timings if t.loop_overhead is not None]
    return {
        "tokens_per_second": statistics.median(t.rate for t in timings),
        "end_to_end_tokens_per_second": statistics.median(t.end_to_end_rate for t in timings),
        "seconds": statistics.median(t.seconds for t in timings),
        "prefill_seconds": statistics.median(t.prefill_seconds for t in timings),
        "num_tokens": timings[-1].num_tokens,
        "num_forwards": timings[-1].num_forwards,
        "loop_overhead": statistics.median(overheads) if overheads else None,
        "num_timings": len(timings),
        "num_calm": sum(t.load.is_calm for t in timings),
    }


def build_report(
    setup: DecodeSetup,
    rounds: Sequence[Round],
    wanted: int,
    goals: Mapping[str, Goal],
    facts: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The part of the report that follows from the rounds.

    Args:
        setup: what was compared.
        rounds: timings by contestant, one mapping for each round.
        wanted: calm pairs that a ratio should have.
        goals: by ratio.
        facts: what is known of each contestant besides its timings.
    """
    contestants = {}
    for name, known in facts.items():
        timings = [one[name] for one in rounds if name in one]
        contestants[name] = {**known, **(summarise_contestant(timings) if timings else {})}
    ratios = {
        ratio.name: summary
        for ratio in ratios_of(setup)
        if (summary := summarise_ratio(ratio, rounds, wanted, goals.get(ratio.name))) is not None
    }
    judged = [ratio["passes"] for ratio in ratios.values() if "passes" in ratio]
    return {
        "passes": all(judged) and bool(judged),
        "num_rounds": len(rounds),
        "ratios": ratios,
        "contestants": contestants,
        "rounds": [{name: asdict(t) for name, t in one.items()} for one in rounds],
    }
