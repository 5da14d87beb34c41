"""Frames of a LeRobotDataset v3 folder as examples of the task, in any order, a bit in memory."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from unidiff.plugins import Example

from .lerobot_dataset import (
    ACTION,
    FRESH,
    STATE,
    Episode,
    LeRobotFolder,
    camera_features,
    fresh_frames,
)

_INFO = Path("meta") / "info.json"
_CACHE_BYTES = 1 << 30  # of decoded episodes


def read_recorded(source: str, limit: int | None = None) -> Sequence[Example] | None:
    """Examples of a folder; None if it is no LeRobotDataset.

    Raises:
        ValueError: if it is one and is damaged, empty, or lacks pictures, states or actions.
    """
    if not (Path(source) / _INFO).is_file():
        return None
    frames = RecordedExamples(LeRobotFolder(source))
    return frames if limit is None else frames[:limit]


class RecordedExamples(Sequence[Example]):
    """Every frame of a data set, with the actions from it to its episode's end.

    Args:
        folder: the data set.
        places: (n, 2) episode and frame of each example; None: all, in order.
        cache: of episodes, shared with other parts of the same data set.
    """

    def __init__(
        self,
        folder: LeRobotFolder,
        places: np.ndarray | None = None,
        cache: "_EpisodeCache | None" = None,
    ) -> None:
        self._folder = folder
        self._cameras = camera_features(folder)
        self._cache = _EpisodeCache(folder) if cache is None else cache
        self._places = _all_places(folder) if places is None else places

    def __len__(self) -> int:
        """Frames."""
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "RecordedExamples": ...
    def __getitem__(self, index: int | slice) -> "Example | RecordedExamples":
        """One example; a slice reads nothing yet."""
        if isinstance(index, slice):
            return RecordedExamples(self._folder, self._places[index], self._cache)
        number, frame = self._places[index].tolist()
        episode = self._cache.episode(number)
        pictures = {name: episode.frames[key][frame] for name, key in self._cameras.items()}
        is_single = len(pictures) == 1
        return {
            "image": next(iter(pictures.values())) if is_single else pictures,
            "state": episode.frames[STATE][frame],
            "instruction": episode.instruction,
            "action": episode.frames[ACTION][frame:],
        }


class _EpisodeCache:
    """The episodes used last, decoded, up to `_CACHE_BYTES`."""

    def __init__(self, folder: LeRobotFolder) -> None:
        self._folder = folder
        self._kept: OrderedDict[int, Episode] = OrderedDict()
        self._num_bytes = 0

    def episode(self, number: int) -> Episode:
        """An episode; the one that was not used for longest makes room."""
        if number not in self._kept:
            self._kept[number] = self._folder.episode(number)
            self._num_bytes += _size(self._kept[number])
            while self._num_bytes > _CACHE_BYTES and len(self._kept) > 1:
                self._num_bytes -= _size(self._kept.popitem(last=False)[1])
        self._kept.move_to_end(number)
        return self._kept[number]


def _size(episode: Episode) -> int:
    """Bytes of an episode's frames."""
    return sum(values.nbytes for values in episode.frames.values())


def _all_places(folder: LeRobotFolder) -> np.ndarray:
    """(n, 2) episode and frame, in order; frames that show an earlier one's pictures are left."""
    marks = FRESH in folder.features
    frames: list[Any] = [
        np.flatnonzero(fresh_frames(folder.episode(number, [FRESH])))
        if marks
        else np.arange(length)
        for number, length in enumerate(folder.lengths)
    ]
    places = [
        np.stack([np.full(len(steps), number), steps], axis=1)
        for number, steps in enumerate(frames)
    ]
    if not places:
        raise ValueError(f"{folder.folder} holds no episodes: record some")
    return np.concatenate(places)
