"""Driving the cells of a plan, and timing single plans."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from unidiff_vla.driving import ChunkPolicy, Drive, EpisodeRecord, View, drive
from unidiff_vla.driving.lockstep import plan_key
from unidiff_vla.environments import InstructedEnv, find_environment

from .cells import Cell, CellFolder

logger = logging.getLogger(__name__)

_NUM_TIMED, _NUM_WARM = 20, 2
MakeEnv = Callable[[str, str], InstructedEnv]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Driver:
    """A policy and how its episodes are driven.

    Attributes:
        policy: plans.
        view: what it sees.
        parallel: episodes side by side.
        make_env: (name, split) -> environment.
        check: called with each environment and its name; raises ValueError if it does not fit.
    """

    policy: ChunkPolicy
    view: View
    parallel: int
    make_env: MakeEnv
    check: Callable[[InstructedEnv, str], None] = lambda env, name: None

    def episodes(self, cell: Cell, progress: Progress) -> list[EpisodeRecord]:
        """The episodes of a cell.

        Raises:
            ValueError: if the environment does not fit the policy.
        """
        seeds = cell.layout_seeds
        number = min(self.parallel, len(seeds))
        envs = [self.make_env(cell.env, cell.split) for _ in range(number)]
        try:
            self.check(envs[0], cell.env)
            runs = drive(self.policy, envs, seeds, self._how(cell), _counter(progress, cell))
        finally:
            for env in envs:
                env.close()
        return [run.record() for run in runs]

    def latencies(self, cell: Cell) -> list[float]:
        """Seconds of single plans, one observation at a time, the first ones left out.

        Layouts that the environment cannot place, or the policy refuses, are passed over.
        """
        env = self.make_env(cell.env, cell.split)
        seconds = []
        try:
            for seed in range(_NUM_TIMED + _NUM_WARM):
                try:
                    seen = self.view(env.reset(seed=seed)[0])
                    start = time.perf_counter()
                    self.policy.predict_action_chunk([seen], seed=[plan_key(cell.seed, seed, 0)])
                except Exception as error:  # whatever a simulator raises, or a policy refuses
                    logger.warning("%s, layout %d is not timed: %s", cell.env, seed, error)
                    continue
                seconds.append(time.perf_counter() - start)
        finally:
            env.close()
        return seconds[_NUM_WARM:]

    def _how(self, cell: Cell) -> Drive:
        """What a cell's episodes have in common; environments of others know no wordings."""
        is_ours = find_environment(cell.env).is_ours
        options = {"wording": cell.wording} if is_ours else None
        return Drive(self.view, cell.seed, options)


@dataclass
class Results:
    """Episodes of every cell, in the order of driving.

    Attributes:
        cells: with their episodes.
        latencies: seconds of single plans.
    """

    cells: list[tuple[Cell, list[EpisodeRecord]]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def episodes(self, **facts: Any) -> list[EpisodeRecord]:
        """Episodes of the cells with these attributes, in order."""
        return [
            episode
            for cell, episodes in self.cells
            if all(getattr(cell, name) == value for name, value in facts.items())
            for episode in episodes
        ]


def measure_cells(
    driver: Driver, cells: Sequence[Cell], folder: CellFolder, progress: Progress, label: str
) -> Results:
    """Every cell's episodes; those that the folder has are not driven again.

    Args:
        driver: drives them.
        cells: at least one.
        folder: keeps what is finished.
        progress: is told how far it is.
        label: of the whole for it.
    """
    results = Results()
    for number, cell in enumerate(cells):
        progress(label, number, len(cells))
        episodes = folder.get(cell)
        if episodes is None:
            episodes = driver.episodes(cell, progress)
            folder.put(cell, episodes)
        results.cells.append((cell, episodes))
    progress(label, len(cells), len(cells))
    results.latencies = driver.latencies(cells[0])
    return results


def _counter(progress: Progress, cell: Cell) -> Callable[[Any], None]:
    """Shows how many episodes of a cell are over."""

    def show(runs: Any) -> None:
        done = sum(run.is_over for run in runs)
        progress(f"{cell.env}, {cell.wording}, seed {cell.seed}", done, cell.num_episodes)

    return show
