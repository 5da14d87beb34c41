"""Reads a LeRobotDataset v3 folder, one episode at a time, and says what is wrong with it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .columns import array_of
from .description import EpisodePlace, read_description
from .features import check_array

_TIME_TOLERANCE = 1e-3  # seconds; what float32 loses in some hours


@dataclass(frozen=True)
class Episode:
    """One episode read.

    Attributes:
        index: its number.
        instruction: what was asked for, by its first frame.
        frames: name -> (T, *shape), every feature but the indices.
    """

    index: int
    instruction: str
    frames: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.frames.values())))


class LeRobotFolder:
    """A data set on the disk; its description is read and checked at once, frames when asked for.

    Args:
        folder: that holds `meta/` and `data/`.

    Attributes:
        fps: frames per second.
        features: name -> feature, without the indices.
        statistics: name -> "mean", "q01", ... -> array.
        instructions: the sentences by task index.

    Raises:
        FileNotFoundError, ValueError: as `read_description`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        description = read_description(self.folder)
        self.info = description.info
        self.fps = int(self.info["fps"])
        self.features = description.features
        self.statistics = description.statistics
        self.instructions = description.instructions
        self._places = description.places
        self._file: tuple[Path, pq.ParquetFile] | None = None
        self._group: tuple[Path, int, pa.Table] | None = None

    @property
    def num_frames(self) -> int:
        """Frames of all episodes."""
        return sum(place.length for place in self._places)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each episode."""
        return tuple(place.length for place in self._places)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._places)

    def __iter__(self) -> Iterator[Episode]:
        """Every episode in order; one is in memory at a time."""
        return (self.episode(number) for number in range(len(self)))

    def episode(self, number: int, names: Iterable[str] | None = None) -> Episode:
        """Read one episode.

        Args:
            number: of the episode.
            names: features to read, for pictures take long to decode; None: all.

        Raises:
            IndexError: if there is none of that number.
            FileNotFoundError: if its file is missing.
            ValueError: if frames are missing or out of order, a value is missing, not finite or of
                another shape than `meta/info.json` says, or the instruction is unknown.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"expected an episode in [0, {len(self)}); got {number}")
        place = self._places[number]
        try:
            table = self._rows_of(place)
            _check_indices(table, place, self.fps)
            wanted = self.features if names is None else names
            frames = {name: self._frames_of(table, name) for name in wanted}
            instruction = self._instruction_of(table)
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:  # arrow's errors are one or the other
            raise ValueError(
                f"episode {number} of {self.folder}, in {place.path.name}: {error}"
            ) from error
        return Episode(number, instruction, frames)

    def _frames_of(self, table: pa.Table, name: str) -> np.ndarray:
        values = array_of(name, self.features[name], _column(table, name))
        check_array(name, self.features[name], values)
        return values

    def _instruction_of(self, table: pa.Table) -> str:
        found = _column(table, "task_index").unique().to_pylist()
        if len(found) > 1:
            raise ValueError(
                f"expected one task_index in all frames of an episode; got {found}: split it where "
                "the task changes"
            )
        task = int(found[0])
        if not 0 <= task < len(self.instructions):
            raise ValueError(
                f"expected a task_index in [0, {len(self.instructions)}), as meta/tasks.parquet "
                f"says; got {task}. Restore that table"
            )
        return self.instructions[task]

    def _rows_of(self, place: EpisodePlace) -> pa.Table:
        """The rows of an episode: those row groups are read that overlap with it."""
        file = self._opened(place)
        start, end = place.first_row, place.first_row + place.length
        parts, at = [file.schema_arrow.empty_table()], 0
        for group in range(file.num_row_groups):
            length = file.metadata.row_group(group).num_rows
            low, high = max(start, at), min(end, at + length)
            if low < high:
                parts.append(self._read_group(place.path, file, group).slice(low - at, high - low))
            at += length
        return pa.concat_tables(parts)

    def _opened(self, place: EpisodePlace) -> pq.ParquetFile:
        if not place.path.is_file():
            raise FileNotFoundError(
                f"expected {place.path}, which holds episode {place.number}; restore the file, or "
                "write the data set again without the episode"
            )
        if self._file is None or self._file[0] != place.path:
            self._file = (place.path, pq.ParquetFile(place.path))
        return self._file[1]

    def _read_group(self, path: Path, file: pq.ParquetFile, group: int) -> pa.Table:
        """A row group; the latest one is kept, for others write many episodes into one."""
        if self._group is None or self._group[:2] != (path, group):
            self._group = (path, group, file.read_row_group(group))
        return self._group[2]


def _column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        raise ValueError(
            f"expected a column {name!r}, as meta/info.json says; the file has "
            f"{table.column_names}. Write the data set again"
        )
    return table[name]


def _check_indices(table: pa.Table, place: EpisodePlace, fps: int) -> None:
    """Refuse rows that are not the frames of an episode, all of them and in order."""
    if len(table) != place.length:
        raise ValueError(
            f"expected {place.length} frames, as the table of episodes says; the data hold "
            f"{len(table)}. Restore the file, or write the data set again without the episode"
        )
    steps = np.arange(place.length)
    expected = {
        "episode_index": np.full(place.length, place.number),
        "frame_index": steps,
        "index": steps + place.first_index,
    }
    for name, values in expected.items():
        found = _column(table, name).to_numpy()
        if not np.array_equal(found, values):
            at = int(np.flatnonzero(found != values)[0])
            raise ValueError(
                f"expected {name} {values[at]} in frame {at}; got {found[at]}. Frames are missing "
                "or out of order: sort them, or drop the episode"
            )
    off = np.abs(_column(table, "timestamp").to_numpy() - steps / fps)
    if not off.max() <= _TIME_TOLERANCE:  # NaN is neither
        raise ValueError(
            f"expected timestamps of {fps} frames per second; frame {off.argmax()} is "
            f"{off.max():.3f} s off. Correct fps in meta/info.json, or resample the episode"
        )
