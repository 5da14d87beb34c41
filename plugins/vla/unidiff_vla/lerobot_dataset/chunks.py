"""Chunks of actions: what a policy is to do from each frame on."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .features import FRESH
from .reader import Episode, LeRobotFolder
from .roles import ACTION


def action_chunks(actions: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The actions of each frame and the following ones.

    Args:
        actions: (T, D).
        horizon: H >= 1.

    Returns:
        (T, H, D) chunks, the last action repeated beyond the episode's end, and (T, H) bool, True
        where that was done: such places must not be learnt.

    Raises:
        ValueError: if `horizon` < 1.
    """
    if horizon < 1:
        raise ValueError(f"expected horizon >= 1; got {horizon=}")
    places = np.arange(len(actions))[:, None] + np.arange(horizon)
    is_pad = places >= len(actions)
    return actions[np.minimum(places, len(actions) - 1)], is_pad


def fresh_frames(episode: Episode) -> np.ndarray:
    """(T,) bool: frames whose pictures were taken there; all where the data set does not say."""
    if FRESH not in episode.frames:
        return np.ones(len(episode), dtype=bool)
    return episode.frames[FRESH][:, 0]


def stream_samples(
    folder: LeRobotFolder, horizon: int, episodes: Iterable[int] | None = None, stride: int = 1
) -> Iterator[dict[str, Any]]:
    """Samples for training, episode by episode; one episode is in memory at a time.

    Args:
        folder: the data set.
        horizon: actions in a chunk.
        episodes: numbers in the order wanted; None: all, in order.
        stride: frames from a sample to the next; those with an earlier one's pictures are left out.

    Yields:
        Every feature of a frame; `action` (H, D) and `action_is_pad` (H,); `task`, the instruction;
        `episode_index` and `frame_index`.

    Raises:
        ValueError: if the data set has no actions, or `stride` or `horizon` < 1.
    """
    if ACTION not in folder.features:
        raise ValueError(
            f"expected a feature {ACTION!r} in {folder.folder}; it has {sorted(folder.features)}"
        )
    if stride < 1 or horizon < 1:
        raise ValueError(f"expected stride >= 1 and horizon >= 1; got {stride=} {horizon=}")
    return _samples(folder, horizon, range(len(folder)) if episodes is None else episodes, stride)


def _samples(
    folder: LeRobotFolder, horizon: int, episodes: Iterable[int], stride: int
) -> Iterator[dict[str, Any]]:
    for number in episodes:
        episode = folder.episode(number)
        chunks, is_pad = action_chunks(episode.frames[ACTION], horizon)
        for step in np.flatnonzero(fresh_frames(episode))[::stride].tolist():
            yield {
                **{name: values[step] for name, values in episode.frames.items()},
                ACTION: chunks[step],
                f"{ACTION}_is_pad": is_pad[step],
                "task": episode.instruction,
                "episode_index": number,
                "frame_index": step,
            }
