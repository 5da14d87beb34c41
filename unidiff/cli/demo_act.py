"""The demonstration's episodes of the robot table."""

import numpy as np

from unidiff.data.sources.held_out import HeldOut
from unidiff.data.sources.tabletop_scene import EVALUATION_SEED_START, TASKS

from . import samplers
from .episode import Played, play
from .session import Session
from .showcase import Row


def drive(session: Session, data: HeldOut) -> tuple[list[Row], list[Played]]:
    """One episode of each task on tables kept for evaluation."""
    rows, episodes = [], []
    options = {**samplers.acting(), "seed": data.seed}
    for task in TASKS:
        seed = EVALUATION_SEED_START + data.seed
        played = play(session, task, seed, options, replan_every=samplers.replan_every())
        episode = played.episode
        outcome = "goal reached" if episode.success else "goal not reached"
        steps = np.linspace(0, episode.num_steps, 5).round().astype(int)
        rows.append(
            Row(
                task=f"act ({task})",
                given=episode.instruction,
                output=f"{outcome} in {episode.num_steps} steps",
                truth="goal reached",
                is_right=bool(episode.success),
                num_forwards=played.num_forwards,
                tokens_per_forward=played.tokens_per_forward,
                seconds=played.seconds,
                pictures=tuple(episode.frames[steps]),
            )
        )
        episodes.append(played)
    return rows, episodes
