"""Many demonstrations into one data set: failures dropped and counted, interruptions resumed.

A camera named "image" becomes the feature `observation.image`, any other
`observation.images.<name>`, as lerobot's policies expect them.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unidiff_vla.environments.protocol import ExpertEnv, pictures_of
from unidiff_vla.lerobot_dataset import (
    ACTION,
    FRESH,
    STATE,
    DatasetWriter,
    Feature,
    camera_feature,
    image_feature,
)
from unidiff_vla.lerobot_dataset.staging import Attempt

from .demonstration import Demonstration, record_demonstration
from .leads import Lead

logger = logging.getLogger(__name__)

_SKIPPED = "is_skipped"  # in an attempt's facts
_PATIENCE = 20  # failures allowed beyond one for each success wanted
_MOST_SKIPPED = 200  # attempts in a row that leave the expert nothing to do


@dataclass(frozen=True)
class RecordingReport:
    """How a recording stands.

    Attributes:
        name: of the environment.
        num_wanted: successes asked for.
        num_kept: successes so far, with those of earlier runs.
        num_failed: attempts dropped so far.
        num_skipped: attempts that left the expert nothing to do.
        num_frames: frames kept so far.
        num_resumed: attempts that an earlier run had made.
    """

    name: str
    num_wanted: int
    num_kept: int = 0
    num_failed: int = 0
    num_skipped: int = 0
    num_frames: int = 0
    num_resumed: int = 0


def features_of(env: ExpertEnv, seed: int = 0, *, marks_fresh: bool = False) -> dict[str, Feature]:
    """The features of an environment's frames, read off its first observation.

    Args:
        env: the environment.
        seed: of the episode that is begun.
        marks_fresh: add `FRESH`, for recordings that do not look at every step.
    """
    observation, _ = env.reset(seed=seed)
    pictures = pictures_of(observation)
    features = {
        camera_feature(name): image_feature(*picture.shape[:2])
        for name, picture in pictures.items()
    }
    features[STATE] = Feature("float32", observation["state"].shape)
    features[ACTION] = Feature("float32", env.action_space.shape)
    if marks_fresh:
        features[FRESH] = Feature("bool", (1,))
    return features


def frames_of(demonstration: Demonstration, *, marks_fresh: bool = False) -> dict[str, np.ndarray]:
    """The frames of a demonstration by feature, (T, *shape) each; see `features_of`."""
    pictures = {camera_feature(name): shots for name, shots in demonstration.pictures.items()}
    frames = {
        **pictures,
        STATE: demonstration.states,
        ACTION: demonstration.actions,
    }
    if marks_fresh:
        frames[FRESH] = demonstration.is_fresh[:, None]
    return frames


def record_demonstrations(
    env: ExpertEnv,
    writer: DatasetWriter,
    name: str,
    num_wanted: int,
    *,
    first_seed: int = 0,
    noise: np.ndarray | None = None,
    options: dict[str, Any] | None = None,
    lead: Lead | None = None,
    look_every: int = 1,
    on_progress: Callable[[RecordingReport], None] | None = None,
) -> RecordingReport:
    """Record until enough demonstrations have succeeded; call it again for each environment.

    Attempts take the seeds `first_seed`, `first_seed + 1`, ... Those that the writer's log has are
    not made again, so that after an interruption the same call goes on where it stopped.

    Args:
        env: the environment; `gymnasium.make(...).unwrapped`.
        writer: of the data set, with the features of `features_of(env)`; it is not finished here.
        name: of the environment, unique in the data set and usable as part of a file's.
        num_wanted: successes, with those of earlier runs.
        first_seed: of the first attempt.
        noise: see `record_demonstration`.
        options: of `env.reset`.
        lead: see `record_demonstration`.
        look_every: see `record_demonstration`; more than 1 needs a writer with the feature `FRESH`.
        on_progress: called after each attempt.

    Raises:
        ValueError: if more attempts fail than succeed, by far, `lead` leaves the expert nothing to
            do in 200 attempts in a row, an argument is out of range, or frames do not fit the
            writer's features.
    """
    if look_every > 1 and FRESH not in writer.staging.features:
        raise ValueError(
            f"look_every={look_every} needs a writer with features_of(marks_fresh=True)"
        )
    if num_wanted < 0 or first_seed < 0 or "/" in name:
        raise ValueError(
            f"expected num_wanted >= 0, first_seed >= 0 and a name without '/'; got {num_wanted=} "
            f"{first_seed=} {name=}"
        )
    report, seed, skipped = RecordingReport(name, num_wanted), first_seed, 0
    while report.num_kept < num_wanted:
        key = f"{name}-{seed:08d}"
        is_old = key in writer.staging.attempts
        if not is_old:
            facts = {"environment": name, "seed": seed}
            try:
                told = record_demonstration(env, seed, noise, options, lead, look_every)
            except (ValueError, MemoryError):  # not the simulator's
                raise
            except Exception as error:
                logger.warning("attempt %s broke off: %s", key, error)
                writer.staging.add_failure(key, "", {**facts, "error": str(error)})
            else:
                _keep(told, writer, key, facts)
        attempt = writer.staging.attempts[key]
        report = _counted(report, attempt, is_old)
        skipped = skipped + 1 if _is_skipped(attempt) else 0
        if skipped == _MOST_SKIPPED:
            raise ValueError(
                f"{skipped} layouts of {name} in a row left its expert nothing to do, with "
                f"{report.num_kept} of {num_wanted} demonstrations made: want fewer, or let what "
                "drives first drive fewer steps"
            )
        if report.num_failed > num_wanted + _PATIENCE:
            raise ValueError(
                f"{report.num_failed} attempts at {name} failed and {report.num_kept} succeeded; "
                "lower the noise or look at the expert"
            )
        if on_progress is not None:
            on_progress(report)
        seed += 1
    logger.info("recorded %s", report)
    return report


def check_resumed(writer: DatasetWriter, wanted: Mapping[str, int], first_seed: int) -> None:
    """Refuse to go on with a recording that holds what is not asked for: it would be kept.

    Args:
        writer: of the recording.
        wanted: environment -> successes.
        first_seed: of the first attempt.

    Raises:
        ValueError: if episodes are there of another environment, of an earlier seed, or more than
            are wanted.
    """
    kept = [one.facts for one in writer.staging.attempts.values() if one.length]
    number = Counter(one["environment"] for one in kept if one["seed"] >= first_seed)
    if len(kept) > number.total() or any(number[one] > wanted.get(one, 0) for one in number):
        raise ValueError(
            f"{writer.staging.folder} holds {dict(Counter(one['environment'] for one in kept))} "
            f"demonstrations of an earlier run, and {dict(wanted)} are wanted from the seed "
            f"{first_seed} on: want those at least, with the same --first-seed, or remove it"
        )


def _keep(
    demonstration: Demonstration | None, writer: DatasetWriter, key: str, facts: dict[str, Any]
) -> None:
    """Keep an attempt if it succeeded; note it if not."""
    if demonstration is None:
        writer.staging.add_failure(key, "", {**facts, _SKIPPED: True})
    elif demonstration.success:
        frames = frames_of(demonstration, marks_fresh=FRESH in writer.staging.features)
        writer.add_episode(key, frames, demonstration.instruction, facts)
    else:
        writer.staging.add_failure(key, demonstration.instruction, facts)


def _counted(report: RecordingReport, attempt: Attempt, is_old: bool) -> RecordingReport:
    """The report after one more attempt."""
    is_kept, is_skipped = attempt.length > 0, _is_skipped(attempt)
    return replace(
        report,
        num_kept=report.num_kept + is_kept,
        num_failed=report.num_failed + (not is_kept and not is_skipped),
        num_skipped=report.num_skipped + is_skipped,
        num_frames=report.num_frames + attempt.length,
        num_resumed=report.num_resumed + is_old,
    )


def _is_skipped(attempt: Attempt) -> bool:
    """Whether it left the expert nothing to do."""
    return bool(attempt.facts.get(_SKIPPED, False))
