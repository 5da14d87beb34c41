"""A recorded data set in memory: every picture, state and chunk, ready to be coded."""

# Shapes: N frames, M fresh ones, T timesteps, D dimensions, H height, W width.

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unidiff_vla.lerobot_dataset import LeRobotFolder, fresh_frames
from unidiff_vla.lerobot_dataset.chunks import ACTION, action_chunks

STATE = "observation.state"
_IMAGE, _IMAGES = "observation.image", "observation.images."


@dataclass(frozen=True)
class Recordings:
    """What a policy is trained on.

    Attributes:
        pictures: camera -> (M, H, W, 3) uint8, those of the fresh frames.
        states: (N, d) float32.
        chunks: (N, T, D) float32; beyond an episode's end its last action is repeated.
        instruction_index: (N,) index into `instructions`.
        instructions: the sentences.
        episode_index: (N,) number of the episode.
        is_fresh: (N,) bool, False of frames that repeat an earlier one's pictures.
    """

    pictures: dict[str, np.ndarray]
    states: np.ndarray
    chunks: np.ndarray
    instruction_index: np.ndarray
    instructions: tuple[str, ...]
    episode_index: np.ndarray
    is_fresh: np.ndarray

    def __len__(self) -> int:
        return len(self.states)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras in the order of training."""
        return tuple(self.pictures)


def read_recordings(
    folder: str | Path, horizon: int, on_progress: Callable[[int, int], None] | None = None
) -> Recordings:
    """All frames of a LeRobotDataset v3 folder with pictures, states and actions.

    Args:
        folder: of the data set.
        horizon: T.
        on_progress: called with (episodes read, episodes).

    Raises:
        ValueError: if the data set is empty or lacks pictures, states or actions, or is damaged.
        FileNotFoundError: if a file is missing.
    """
    source = LeRobotFolder(folder)
    names = camera_features(source)
    missing = {STATE, ACTION} - set(source.features)
    if missing or not names or not len(source):
        raise ValueError(
            f"expected episodes with pictures, {STATE!r} and {ACTION!r} in {source.folder}; it has "
            f"{len(source)} episodes of {sorted(source.features)}"
        )
    episodes = []
    for episode in source:
        episodes.append(episode)
        if on_progress is not None:
            on_progress(len(episodes), len(source))
    fresh = [fresh_frames(one) for one in episodes]
    lengths = [len(one) for one in episodes]
    places = {text: place for place, text in enumerate(source.instructions)}
    return Recordings(
        pictures={
            camera: np.concatenate(
                [one.frames[name][here] for one, here in zip(episodes, fresh, strict=True)]
            )
            for camera, name in names.items()
        },
        states=np.concatenate([one.frames[STATE] for one in episodes]),
        chunks=np.concatenate([action_chunks(one.frames[ACTION], horizon)[0] for one in episodes]),
        instruction_index=np.repeat([places[one.instruction] for one in episodes], lengths),
        instructions=tuple(source.instructions),
        episode_index=np.repeat([one.index for one in episodes], lengths),
        is_fresh=np.concatenate(fresh),
    )


def camera_features(source: LeRobotFolder) -> dict[str, str]:
    """Camera -> name of the feature with its pictures, in the data set's order."""
    found = {name.removeprefix(_IMAGES): name for name in source.features if _IMAGES in name}
    if _IMAGE in source.features:
        found["image"] = _IMAGE
    return found
