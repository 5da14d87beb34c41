"""Recorded data sets in memory: every picture, state and chunk, ready to be coded."""

# Shapes: N frames, M fresh ones, T timesteps, D dimensions, H height, W width.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np

from unidiff_vla.lerobot_dataset import (
    ACTION,
    STATE,
    LeRobotFolder,
    action_chunks,
    camera_features,
    fresh_frames,
)
from unidiff_vla.lerobot_dataset.folder import INFO_PATH, STATISTICS_PATH, TASKS_PATH
from unidiff_vla.units import is_absurd


@dataclass(frozen=True)
class Recordings:
    """What a policy is trained on.

    Attributes:
        pictures: camera -> (M, H, W, 3) uint8, those of the fresh frames.
        states: (N, d) float32.
        chunks: (N, T, D) float32; beyond an episode's end its last action is repeated.
        instruction_index: (N,) index into `instructions`.
        instructions: the sentences.
        episode_index: (N,) number of the episode, counted through all data sets.
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
    folders: Sequence[str | Path],
    horizon: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Recordings:
    """All frames of LeRobotDataset v3 folders with pictures, states and actions, one after another.

    Args:
        folders: of data sets with the same features, at least one.
        horizon: T.
        on_progress: called with (episodes read, episodes of all folders).

    Raises:
        ValueError: if a data set is empty, damaged, lacks pictures, states or actions, has other
            features than the first, or an action that is absurdly far from all others.
        FileNotFoundError: if a file is missing.
    """
    if isinstance(folders, str):
        raise ValueError(f"expected a list of folders; got {folders!r}: write [{folders!r}]")
    sources = [LeRobotFolder(folder) for folder in folders]
    cameras = check_alike(sources)
    told = tuple(dict.fromkeys(text for source in sources for text in source.instructions))
    total = sum(len(source) for source in sources)
    pictures: dict[str, list[np.ndarray]] = {camera: [] for camera in cameras}
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("states", "chunks", "instruction_index", "episode_index", "is_fresh")
    }
    for number, episode in enumerate(chain(*sources)):
        frames, is_fresh = episode.frames, fresh_frames(episode)
        for camera, name in cameras.items():
            pictures[camera].append(frames[name][is_fresh])
        parts["states"].append(frames[STATE])
        parts["chunks"].append(action_chunks(frames[ACTION], horizon)[0])
        parts["instruction_index"].append(np.full(len(episode), told.index(episode.instruction)))
        parts["episode_index"].append(np.full(len(episode), number))
        parts["is_fresh"].append(is_fresh)
        if on_progress is not None:
            on_progress(number + 1, total)
    own_actions = np.concatenate([one[:, 0] for one in parts["chunks"]])
    _check_actions(own_actions, sources)
    return Recordings(
        pictures={camera: np.concatenate(one) for camera, one in pictures.items()},
        instructions=told,
        **{name: np.concatenate(one) for name, one in parts.items()},
    )


def _check_actions(actions: np.ndarray, sources: Sequence[LeRobotFolder]) -> None:
    """Raise ValueError naming the first action that would leave a single bin to all others.

    Args:
        actions: (N, D) of every frame of all data sets, one after another; the reader has made sure
            that they are finite.
        sources: the data sets.
    """
    found = np.argwhere(is_absurd(actions))
    if not len(found):
        return
    row, dimension = (int(one) for one in found[0])
    frames = [
        (source.folder, number, frame)
        for source in sources
        for number, length in enumerate(source.lengths)
        for frame in range(length)
    ]
    folder, number, frame = frames[row]
    raise ValueError(
        f"episode {number}, frame {frame} of {folder}: dimension {dimension} of the action is "
        f"{actions[row, dimension]:g}, and 98 % of the {len(actions)} recorded ones lie between "
        f"{np.quantile(actions[:, dimension], 0.01, method='higher'):g} and "
        f"{np.quantile(actions[:, dimension], 0.99, method='lower'):g}: bins that reach so far "
        "would tell nothing of these. Mend or leave out that episode"
    )


def recording_key(folder: str | Path) -> str:
    """Hexadecimal name of what a data set holds, wherever its folder lies.

    Read are its description, sentences and statistics, which hold numbers of all frames.

    Raises:
        FileNotFoundError: if it is no data set.
    """
    digest = blake2b(digest_size=8)
    for part in (INFO_PATH, TASKS_PATH, STATISTICS_PATH):
        digest.update((Path(folder) / part).read_bytes())
    return digest.hexdigest()


def check_alike(sources: Sequence[LeRobotFolder]) -> dict[str, str]:
    """Camera -> feature of data sets that can be learnt together.

    Raises:
        ValueError: if one is empty, lacks something or differs from the first.
    """
    if not sources:
        raise ValueError("expected the folder of at least one data set; got none")
    first = sources[0]
    cameras = camera_features(first)
    wanted = [*cameras.values(), STATE, ACTION]
    sizes = {name: first.features[name].shape[:2] for name in cameras.values()}
    if len({side for size in sizes.values() for side in size}) != 1:
        raise ValueError(
            f"expected square pictures, of one size for all cameras, in {first.folder}; got "
            f"{sizes}. Record them so, or crop and scale the data set"
        )
    for source in sources:
        if not len(source):
            raise ValueError(f"{source.folder} holds no episodes: record some")
        if list(camera_features(source)) != list(cameras):
            raise ValueError(
                f"expected the cameras {list(cameras)} of {first.folder}, in that order; "
                f"{source.folder} has {list(camera_features(source))}. Record them alike"
            )
        for name in wanted:
            if source.features[name] != first.features[name]:
                raise ValueError(
                    f"expected {name!r} as in {first.folder}, {first.features[name]}; "
                    f"{source.folder} has {source.features[name]}. Record them alike"
                )
    return cameras
