"""Quality against tokens per forward: cells that are measured once, and what they say together.

A cell is one setting of one task on one checkpoint. Each is compared, input by input, with its
task's reference: the same options, but one token per step. Every cell is a file, so that a sweep
can be interrupted and goes on where it stopped.
"""

# Shapes: N inputs.

import json
import os
import time
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from .context import EvaluationContext
from .report import plain
from .responder import ModelResponder, Responder, Usage
from .suite import load_suite
from .tradeoff_tasks import TASKS

SWEEPS_DIR = Path(__file__).parent / "suites" / "quality"
_HEAD = ("name", "suite", "margin_points", "seed_explored", "seed_confirmed")
REFERENCE, DEFAULT = "one token per step", "default"
# Options of a default that say how fast it goes; a reference and the other strategies bring theirs.
PACE_OPTIONS = (
    *("unmasking_strategy", "max_denoising_steps", "confidence_threshold", "confidence_metric"),
    *("factor", "frechet_margin", "entropy_bound", "final_entropy_bound", "hierarchy_threshold"),
    *("local_entropy_bound", "final_local_entropy_bound", "local_reach"),
    *("guidance_refresh", "revision", "resample_share", "resample_rounds"),
)
Progress = Callable[["Cell", "Measured", bool], None]


@dataclass(frozen=True)
class Cell:
    """One setting of one task.

    Attributes:
        task: name in `TASKS`.
        label: strategy, `REFERENCE` or `DEFAULT`.
        options: keywords of `generate()`, and `batch_size`.
        num_inputs: asked for.
        seed: of inputs and sampling.
        checkpoint: short name of the weights.
        sampling: which of several samplings of the same inputs, from 0.
    """

    task: str
    label: str
    options: Mapping[str, Any]
    num_inputs: int
    seed: int
    checkpoint: str
    sampling: int = 0

    @property
    def key(self) -> str:
        """Name of its file; the label is no part of it."""
        facts = {name: value for name, value in asdict(self).items() if name != "label"}
        if not self.sampling:
            del facts["sampling"]
        text = json.dumps(facts, sort_keys=True)
        return f"{self.task}-{blake2b(text.encode(), digest_size=6).hexdigest()}"


@dataclass(frozen=True)
class Measured:
    """A cell's scores and what they cost.

    Attributes:
        scores: (N,) float64 in [0, 1] by name, the suite's own number first.
        details: numbers about all inputs together.
        num_forwards: summed over requests, those of weaker guidance branches included.
        num_tokens: summed over requests, end tokens included.
        num_requests: requests answered; an episode makes several.
        cpu_seconds: processor time.
        num_samplings: of each input.
    """

    scores: Mapping[str, np.ndarray]
    details: Mapping[str, Any]
    num_forwards: int
    num_tokens: float
    num_requests: int
    cpu_seconds: float
    num_samplings: int = 1

    @classmethod
    def pooled(cls, samplings: "Sequence[Measured]") -> "Measured":
        """Several samplings of the same inputs: each input's mean score, all costs together."""
        names = samplings[0].scores
        return cls(
            scores={name: np.mean([one.scores[name] for one in samplings], 0) for name in names},
            details=samplings[0].details,
            num_forwards=sum(one.num_forwards for one in samplings),
            num_tokens=sum(one.num_tokens for one in samplings),
            num_requests=sum(one.num_requests for one in samplings),
            cpu_seconds=round(sum(one.cpu_seconds for one in samplings), 2),
            num_samplings=len(samplings),
        )

    @property
    def tokens_per_forward(self) -> float:
        """Of all requests together."""
        return self.num_tokens / max(1, self.num_forwards)

    @property
    def forwards_per_request(self) -> float:
        """Mean over requests."""
        return self.num_forwards / max(1, self.num_requests)


class CellStore:
    """Measured cells as files of a folder."""

    def __init__(self, folder: Path) -> None:
        """Store that makes its folder when it first keeps something."""
        self.folder = folder

    def get(self, cell: Cell) -> Measured | None:
        """The cell's result, None where it was not measured yet."""
        path = self.folder / f"{cell.key}.json"
        if not path.is_file():
            return None
        facts = json.loads(path.read_text(encoding="utf-8"))["measured"]
        scores = {name: np.array(values) for name, values in facts.pop("scores").items()}
        return Measured(scores=scores, **facts)

    def put(self, cell: Cell, measured: Measured) -> None:
        """Keep a result; a file is there whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scores = {name: values.tolist() for name, values in measured.scores.items()}
        facts = {**asdict(cell), "measured": {**vars(measured), "scores": scores}}
        path = self.folder / f"{cell.key}.json"
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(facts), encoding="utf-8")
        draft.replace(path)


def load_sweep(name: str = "bundled") -> dict[str, Any]:
    """Definition of a sweep: goals, and a table for each task.

    Raises:
        ValueError: if there is no such sweep, or it has a table that is no task.
    """
    path = SWEEPS_DIR / f"{name}.toml"
    if not path.is_file():
        known = sorted(one.stem for one in SWEEPS_DIR.glob("*.toml"))
        raise ValueError(f"sweep must be one of {known}, got {name!r}")
    sweep = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = set(sweep) - {*_HEAD, *TASKS}
    if unknown:
        raise ValueError(f"sweep {name!r} has unknown tables {sorted(unknown)}: {list(TASKS)}")
    return sweep


@dataclass(frozen=True)
class Plan:
    """Which cells of a sweep to measure.

    Attributes:
        sweep: see `load_sweep`.
        tasks: names of its tasks.
        confirms: only each task's default and its reference, on the inputs that the sweep sets
            aside for that; else every setting on fewer, other inputs.
        limit: largest number of inputs of a cell, for a quick look.
    """

    sweep: Mapping[str, Any]
    tasks: Sequence[str]
    confirms: bool = False
    limit: int | None = None

    def cells(self, checkpoint: str) -> list[Cell]:
        """All cells, each task's reference first, samplings of a setting side by side."""
        return [
            replace(cell, sampling=sampling)
            for task in self.tasks
            for cell in self._of(task, checkpoint)
            for sampling in range(self.num_samplings(task))
        ]

    def num_samplings(self, task: str) -> int:
        """How often each input of a task is sampled: what two samplings differ by is noise."""
        return self.sweep[task].get("num_samplings", 1) if self.confirms else 1

    def num_inputs(self, task: str) -> int:
        """Inputs of each cell of a task."""
        table = self.sweep[task]
        number = table["num_confirmed" if self.confirms else "num_explored"]
        return number if self.limit is None else min(self.limit, number)

    def minutes(self) -> float:
        """Estimate of the whole plan's processor time by the sweep's notes, nothing yet known."""
        total = 0.0
        for cell in self.cells(""):
            cost = self.sweep[cell.task]["milliseconds"]
            total += cost["reference" if cell.label == REFERENCE else "default"] * cell.num_inputs
        return total / 60_000

    def _of(self, task: str, checkpoint: str) -> list[Cell]:
        """The cells of one task."""
        table = self.sweep[task]
        default = dict(load_suite(self.sweep["suite"])[task]["sampler"])
        number = self.num_inputs(task)
        seed = self.sweep["seed_confirmed" if self.confirms else "seed_explored"]

        def cell(label: str, options: Mapping[str, Any]) -> Cell:
            return Cell(task, label, dict(options), number, seed, checkpoint)

        without_pace = {n: v for n, v in default.items() if n not in PACE_OPTIONS}
        cells = [cell(REFERENCE, {**without_pace, **table["reference"]}), cell(DEFAULT, default)]
        if self.confirms:
            return cells
        base = {**without_pace, **table.get("shared", {})}
        return cells + [
            cell(strategy, {**base, "unmasking_strategy": strategy, **setting})
            for strategy, settings in table["strategies"].items()
            for setting in settings
        ]


def plan_sweep(
    tasks: Collection[str] | None = None, *, confirms: bool = False, limit: int | None = None
) -> Plan:
    """Plan of the bundled sweep.

    Args:
        tasks: names, None: all.
        confirms: see `Plan`.
        limit: see `Plan`.

    Raises:
        ValueError: if a task is not in the sweep, or the limit is below 1.
    """
    sweep = load_sweep()
    known = [task for task in TASKS if task in sweep]
    if tasks is not None and (not tasks or set(tasks) - set(known)):
        raise ValueError(f"tasks must be among {known}, got {sorted(tasks)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be >= 1 or None, got {limit}")
    chosen = known if tasks is None else [task for task in known if task in tasks]
    return Plan(sweep, tuple(chosen), confirms, limit)


def measure_cell(context: EvaluationContext, sweep: Mapping[str, Any], cell: Cell) -> Measured:
    """Ask the context's responder for everything in a cell; the context takes on its seed."""
    context.seed, context.sampling = cell.seed, cell.sampling
    context.responder.usage = usage = Usage()
    suite = load_suite(sweep["suite"])
    settings = {**suite[cell.task], "sampler": cell.options}
    begin = time.process_time()
    scores = TASKS[cell.task](context, settings, cell.num_inputs)
    return Measured(
        scores=dict(scores.by_name),
        details=plain(scores.details),
        num_forwards=usage.num_forwards,
        num_tokens=usage.num_tokens,
        num_requests=usage.num_requests,
        cpu_seconds=round(time.process_time() - begin, 2),
    )


def run_sweep(
    model: Any,
    processor: Any,
    checkpoint: str,
    folder: Path,
    plan: Plan,
    *,
    progress: Progress | None = None,
    responder: Responder | None = None,
) -> list[tuple[Cell, Measured]]:
    """Every setting of a plan with its result; cells in the folder are not measured again.

    Args:
        model: `UniDiffForBlockDiffusion`.
        processor: its processor.
        checkpoint: short name of the weights; results of others are not mixed in.
        folder: of the cells' files.
        plan: what to measure.
        progress: called after each cell with the cell, its result and whether it is new.
        responder: answers in the model's place, in tests.
    """
    context = EvaluationContext(responder or ModelResponder(model, processor), model, processor)
    store, found = CellStore(folder), list[tuple[Cell, list[Measured]]]()
    for cell in plan.cells(checkpoint):
        measured = store.get(cell)
        is_new = measured is None
        if measured is None:
            measured = measure_cell(context, plan.sweep, cell)
            store.put(cell, measured)
        if cell.sampling:
            found[-1][1].append(measured)
        else:
            found.append((cell, [measured]))
        if progress is not None:
            progress(cell, measured, is_new)
    return [(cell, Measured.pooled(samplings)) for cell, samplings in found]
