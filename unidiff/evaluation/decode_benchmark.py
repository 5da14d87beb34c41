"""`unidiff bench decode`: our decoder against its peers, in interleaved rounds of one run.

In a round every contestant decodes once, the order turning from round to round, so that a machine
that slows down slows all alike. A ratio is formed inside a round; its median is reported.
"""

import json
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .decode_contestants import (
    Contestant,
    Decoded,
    build_contestants,
    contestant_names,
    timed_forwards,
)
from .decode_report import Round, Timing, build_report, pairs_of, ratios_of
from .decode_setup import DecodeSetup, load_goals
from .load_guard import Load, LoadGuard, describe_machine, worse
from .suite import describe_environment

REPORT_NAME = "decode.json"
_PREFILLS = 3  # calls that read the prompt before each timing; their median counts
_ATTEMPTS = 5  # timings of a decode that took no longer than its prefill
Progress = Callable[[int, str], None]


@dataclass(frozen=True)
class Schedule:
    """How long to measure.

    Attributes:
        rounds: calm pairs that every ratio should have.
        max_rounds: rounds after which to stop even so; None: twice `rounds`.
        only: names of ratios or contestants; None: all.
    """

    rounds: int = 5
    max_rounds: int | None = None
    only: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: if one is out of range.
        """
        if self.rounds < 1:
            raise ValueError(f"rounds must be >= 1, got {self.rounds}")
        if self.max_rounds is not None and self.max_rounds < self.rounds:
            raise ValueError(f"max_rounds must be >= rounds={self.rounds}, got {self.max_rounds}")

    @property
    def last(self) -> int:
        """Rounds at most."""
        return 2 * self.rounds if self.max_rounds is None else self.max_rounds


def chosen_contestants(setup: DecodeSetup, only: Collection[str] | None) -> list[str]:
    """Names of the contestants that the chosen ratios and contestants need.

    Raises:
        ValueError: if a name is neither.
    """
    names = contestant_names(setup)
    if not only:
        return names
    ratios = {ratio.name: ratio for ratio in ratios_of(setup)}
    unknown = sorted(set(only) - set(names) - set(ratios))
    if unknown:
        raise ValueError(
            f"unknown names {unknown}; the ratios are {sorted(ratios)}, the contestants {names}"
        )
    needed = {name for name in only if name in names}
    needed |= {name for chosen in only if chosen in ratios for name in ratios[chosen].contestants}
    return [name for name in names if name in needed]


def run_decode_benchmark(
    setup: DecodeSetup,
    schedule: Schedule,
    *,
    guard: LoadGuard | None = None,
    out: Path | None = None,
    resumes: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The report, also written to `out` after each round.

    Args:
        setup: what is compared.
        schedule: how often.
        guard: waits for calm moments; None: one with its default limits.
        out: folder for `decode.json`; None: nothing is written.
        resumes: go on with the rounds in that file.
        progress: called with (rounds done, contestant) before each timing.

    Raises:
        ValueError: if a name in `schedule.only` is unknown, or `resumes` without a folder or with a
            file of another setup.
        KeyboardInterrupt: as it came, with the report of the finished rounds as its argument.
    """
    guard = guard or LoadGuard()
    names = chosen_contestants(setup, schedule.only)
    goals = load_goals("decode")
    rounds = _earlier_rounds(setup, out) if resumes else []
    with torch_threads(setup.threads):
        contestants = build_contestants(setup, names)
        machine = _environment(guard)

        def report() -> dict[str, Any]:
            facts = {contestant.name: contestant.facts() for contestant in contestants}
            body = build_report(setup, rounds, schedule.rounds, goals, facts)
            head = {"benchmark": "decode", "setup": asdict(setup), "environment": machine}
            return {**head, "rounds_wanted": schedule.rounds, **body}

        try:
            _warm_up(contestants)
            while not _is_enough(setup, names, rounds, schedule):
                rounds.append(_run_round(contestants, len(rounds), setup, guard, progress))
                _write(out, report())
        except KeyboardInterrupt:
            raise KeyboardInterrupt(report()) from None
    return report()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch works with `count` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def turned(names: Sequence[Any], by: int) -> list[Any]:
    """The sequence begun at place `by`, around its end."""
    start = by % len(names)
    return [*names[start:], *names[:start]]


def time_contestant(contestant: Contestant, setup: DecodeSetup, guard: LoadGuard) -> Timing:
    """One decode between its prefills; repeated if noise made the prefill the longer one.

    Raises:
        RuntimeError: if tokens are missing, or the machine is too busy for any number.
    """
    for _ in range(_ATTEMPTS):
        prefill, load = _time_prefill(contestant, guard)
        with timed_forwards() as forwards:
            decoded, seconds, decode_load = guard.measure(contestant.run)
        check_complete(contestant, decoded, setup)
        if seconds > prefill:
            break
    else:
        raise RuntimeError(
            f"{contestant.name}: the prefill took longer than the whole call {_ATTEMPTS} times: "
            "measure more new tokens, or on a calmer machine"
        )
    num_tokens = contestant.batch * setup.new_tokens
    return Timing(
        seconds=seconds,
        prefill_seconds=prefill,
        num_tokens=num_tokens,
        num_tokens_after_prefill=num_tokens - contestant.batch * contestant.tokens_of_prefill,
        num_forwards=decoded.num_forwards or contestant.num_forwards or 0,
        forward_seconds=sum(forwards) if contestant.is_ours else None,
        load=decode_load if load is None else worse(load, decode_load),
    )


def check_complete(contestant: Contestant, decoded: Decoded, setup: DecodeSetup) -> None:
    """Raise RuntimeError unless every row has all its tokens."""
    wanted = (contestant.batch, setup.prompt_tokens + setup.new_tokens)
    if tuple(decoded.ids_BT.shape) != wanted:
        raise RuntimeError(
            f"{contestant.name} returned ids of shape {tuple(decoded.ids_BT.shape)}, not {wanted}: "
            "its speed would not be that of the same work"
        )


def _time_prefill(contestant: Contestant, guard: LoadGuard) -> tuple[float, Load | None]:
    """(median seconds, load) of reading the prompt; nothing where there is no prefill."""
    if contestant.prefill is None:
        return 0.0, None
    measured = [guard.measure(contestant.prefill) for _ in range(_PREFILLS)]
    load = measured[0][2]
    for _, _, other in measured[1:]:
        load = worse(load, other)
    return statistics.median(seconds for _, seconds, _ in measured), load


def _run_round(
    contestants: Sequence[Contestant],
    number: int,
    setup: DecodeSetup,
    guard: LoadGuard,
    progress: Progress | None,
) -> dict[str, Timing]:
    """A timing of every contestant."""
    timings = {}
    for contestant in turned(contestants, number):
        if progress is not None:
            progress(number, contestant.name)
        timings[contestant.name] = time_contestant(contestant, setup, guard)
    return timings


def _warm_up(contestants: Sequence[Contestant]) -> None:
    """Run each once: kernels chosen, weights packed, pages touched."""
    for contestant in contestants:
        if contestant.num_forwards is None:  # the others ran when their forwards were counted
            contestant.run()
        if contestant.prefill is not None:
            contestant.prefill()


def _is_enough(
    setup: DecodeSetup, names: Collection[str], rounds: Sequence[Round], schedule: Schedule
) -> bool:
    """Whether every ratio has its calm pairs, or there have been rounds enough."""
    whole = [one for one in rounds if set(names) <= set(one)]
    if len(whole) < schedule.rounds or len(whole) >= schedule.last:
        return len(whole) >= schedule.last
    pairs = [pairs_of(ratio, whole) for ratio in ratios_of(setup)]
    return all(len(calm) >= schedule.rounds for everything, calm in pairs if everything)


def _environment(guard: LoadGuard) -> dict[str, Any]:
    """Versions, threads, processor, and the guard's limits."""
    known = describe_environment(None)
    versions = {name: known[name] for name in ("unidiff", "torch", "transformers", "threads")}
    return {**versions, **describe_machine(), "calm_limits": guard.limits()}


def _write(out: Path | None, report: dict[str, Any]) -> None:
    """Write the report whole or not at all."""
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    new = out / f"{REPORT_NAME}.new"
    new.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    new.replace(out / REPORT_NAME)


def _earlier_rounds(setup: DecodeSetup, out: Path | None) -> list[Round]:
    """Rounds of an interrupted run of the same setup; none if there was no run."""
    if out is None:
        raise ValueError("--resume needs --out: the folder of the run to go on with")
    path = out / REPORT_NAME
    if not path.is_file():
        return []
    report = json.loads(path.read_text(encoding="utf-8"))
    if DecodeSetup.from_dict(report["setup"]) != setup:
        raise ValueError(f"{path} is of another setup: give the same options, or another --out")
    return [{n: Timing.from_dict(t) for n, t in one.items()} for one in report["rounds"]]
