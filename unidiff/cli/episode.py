"""Episodes of the robot table in the demonstration: the model as a policy, and the film."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unidiff.data.sources.tabletop_rollout import EpisodeResult, rollout

from .film import FilmedEpisode, write_film
from .session import Answer, Session


@dataclass(frozen=True)
class Played:
    """One episode and what it cost.

    Attributes:
        task: "reach" or "push".
        seed: of the table.
        episode: what happened.
        answers: the answer of every plan.
    """

    task: str
    seed: int
    episode: EpisodeResult
    answers: tuple[Answer, ...]

    @property
    def num_forwards(self) -> int:
        """Forwards of all plans."""
        return sum(answer.num_forwards for answer in self.answers)

    @property
    def tokens_per_forward(self) -> float:
        """Action tokens of all plans per forward."""
        tokens = sum(one.num_forwards * one.tokens_per_forward for one in self.answers)
        return tokens / max(1, self.num_forwards)

    @property
    def seconds(self) -> float:
        """Seconds spent planning."""
        return sum(answer.seconds for answer in self.answers)


def play(
    session: Session,
    task: str,
    seed: int,
    options: dict[str, Any],
    *,
    replan_every: int,
) -> Played:
    """Let the model drive one episode from pictures and hand positions alone.

    Args:
        session: the loaded checkpoint.
        task: "reach" or "push".
        seed: of the table.
        options: keywords of `generate()`.
        replan_every: actions carried out of each chunk.

    Raises:
        ValueError: if the task is unknown or `replan_every` is not in [1, 8].
    """
    answers: list[Answer] = []

    def policy(image: np.ndarray, state: np.ndarray, told: str) -> np.ndarray:
        inputs = session.processor.for_action(image, state, told)
        answers.append(session.answer(inputs, options)[0])
        chunk: np.ndarray = answers[-1].value
        return chunk

    episode = rollout(policy, seed, task, replan_every=replan_every)
    return Played(task, seed, episode, tuple(answers))


def write_gif(path: Path, episodes: Sequence[Played]) -> None:
    """Write episodes side by side; one that ends early waits for the others."""
    write_film(path, [_filmed(one.episode) for one in episodes])


def _filmed(episode: EpisodeResult) -> FilmedEpisode:
    """What is shown of an episode."""
    outcome = f"done in {episode.num_steps} steps" if episode.success else "not reached"
    return FilmedEpisode(
        frames=episode.frames,
        steps=range(len(episode.frames)),
        instruction=episode.instruction,
        outcome=outcome,
        is_good=bool(episode.success),
    )
