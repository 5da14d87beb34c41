"""Writes a LeRobotDataset v3 folder: resumable while it is recorded, whole or absent when done."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .columns import column_of, hub_features
from .features import INDEX_FEATURES, Feature
from .folder import (
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    STATISTICS_PATH,
    TASKS_PATH,
    VERSION,
    tasks_table,
    write_json,
    write_table,
)
from .staging import Attempt, Staging
from .statistics import StatisticsCollector, statistics_of, to_json

FILE_MEGABYTES = 100


class DatasetWriter:
    """Collects episodes in `<folder>.partial` and at last writes them to `folder`.

    Args:
        folder: of the data set; must not exist.
        features: of a frame, without timestamps and indices.
        fps: frames per second.
        robot_type: name of the robot.
        settings: of the recording, kept in `meta/info.json`; a recording resumes with the same.

    Raises:
        FileExistsError: if `folder` exists.
        ValueError: if `fps` is not positive, or as `Staging`.
    """

    def __init__(
        self,
        folder: str | Path,
        features: Mapping[str, Feature],
        *,
        fps: int,
        robot_type: str = "unknown",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} exists; choose another name or remove it")
        if fps < 1:
            raise ValueError(f"expected fps >= 1; got {fps=}")
        self.fps, self.robot_type, self.settings = fps, robot_type, dict(settings or {})
        plan = {"fps": fps, "robot_type": robot_type, "settings": self.settings}
        partial = self.folder.with_name(f"{self.folder.name}.partial")
        self.staging = Staging(partial, features, plan)

    def add_episode(
        self,
        key: str,
        frames: Mapping[str, np.ndarray],
        instruction: str,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep an episode; it is on the disk when this returns.

        Args:
            key: unique name, usable as a file's.
            frames: name -> (T, *shape).
            instruction: what was asked for; becomes a row of `meta/tasks.parquet`.
            facts: further columns of the table of episodes.

        Raises:
            ValueError: as `check_frames`, or if there is no instruction.
        """
        if not instruction:
            raise ValueError(f"expected an instruction of episode {key!r}; got none")
        length = len(next(iter(frames.values()), []))
        self.staging.add(Attempt(key, length, instruction, dict(facts or {})), frames)

    def finish(self) -> Path:
        """Write the data set, rename it into place, remove what was collected; its folder.

        Raises:
            ValueError: if no episode was kept.
        """
        if not any(attempt.length for attempt in self.staging.attempts.values()):
            raise ValueError(f"no episode was kept, so {self.folder} would be empty; record some")
        temporary = self.staging.folder / "dataset"
        shutil.rmtree(temporary, ignore_errors=True)
        _Assembly(self, temporary).write()
        os.rename(temporary, self.folder)
        shutil.rmtree(self.staging.folder)
        return self.folder


class _Assembly:
    """The files of one data set while they are written."""

    def __init__(self, writer: DatasetWriter, folder: Path) -> None:
        self._writer, self._folder = writer, folder
        self._features = {**writer.staging.features, **INDEX_FEATURES}
        self._collectors = {name: StatisticsCollector(one) for name, one in self._features.items()}
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._num_frames, self._file_number = 0, 0
        self._parquet: pq.ParquetWriter | None = None

    def write(self) -> None:
        """Data, then what describes it."""
        (self._folder / "meta").mkdir(parents=True)
        for attempt, frames in self._writer.staging.episodes():
            self._write_episode(attempt, frames)
        self._close_file()
        episodes = self._folder / EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        write_table(episodes, pa.Table.from_pylist(self._rows))
        write_table(self._folder / TASKS_PATH, tasks_table(list(self._tasks)))
        found = {name: collector.result() for name, collector in self._collectors.items()}
        write_json(self._folder / STATISTICS_PATH, to_json(found))
        write_json(self._folder / INFO_PATH, self._info())

    def _write_episode(self, attempt: Attempt, frames: dict[str, np.ndarray]) -> None:
        number, length = len(self._rows), attempt.length
        task = self._tasks.setdefault(attempt.instruction, len(self._tasks))
        steps = np.arange(length)
        counted = {
            "timestamp": steps / self._writer.fps,
            "frame_index": steps,
            "episode_index": np.full(length, number),
            "index": steps + self._num_frames,
            "task_index": np.full(length, task),
        }
        for name, values in counted.items():
            frames[name] = values.astype(INDEX_FEATURES[name].numpy_dtype).reshape(length, 1)
        columns = {name: column_of(one, frames[name]) for name, one in self._features.items()}
        place = self._append(pa.table(columns))
        statistics = {
            name: statistics_of(one, frames[name]) for name, one in self._features.items()
        }
        for name, collector in self._collectors.items():
            collector.add(frames[name])
        self._rows.append(self._row(number, attempt, place, to_json(statistics)))
        self._num_frames += length

    def _append(self, table: pa.Table) -> dict[str, int]:
        """Write a row group; the chunk and file that it went to."""
        if self._parquet is None:
            path = self._folder / DATA_PATH.format(**self._place())
            path.parent.mkdir(parents=True, exist_ok=True)
            hub = {"huggingface": json.dumps(hub_features(self._features))}
            self._parquet = pq.ParquetWriter(path, table.schema.with_metadata(hub))
        self._parquet.write_table(table, row_group_size=len(table))
        place = self._place()
        path = self._folder / DATA_PATH.format(**place)
        if path.stat().st_size > FILE_MEGABYTES * 2**20:
            self._close_file()
        return place

    def _close_file(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None
            self._file_number += 1

    def _place(self) -> dict[str, int]:
        chunk, file = divmod(self._file_number, FILES_PER_CHUNK)
        return {"chunk_index": chunk, "file_index": file}

    def _row(
        self, number: int, attempt: Attempt, place: dict[str, int], statistics: dict[str, Any]
    ) -> dict[str, Any]:
        """A row of the table of episodes."""
        return {
            "episode_index": number,
            "tasks": [attempt.instruction],
            "length": attempt.length,
            "data/chunk_index": place["chunk_index"],
            "data/file_index": place["file_index"],
            "dataset_from_index": self._num_frames,
            "dataset_to_index": self._num_frames + attempt.length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            **{f"unidiff/{name}": value for name, value in attempt.facts.items()},
            **{
                f"stats/{feature}/{name}": values
                for feature, found in statistics.items()
                for name, values in found.items()
            },
        }

    def _info(self) -> dict[str, Any]:
        writer = self._writer
        attempts = writer.staging.attempts.values()
        return {
            "codebase_version": VERSION,
            "robot_type": writer.robot_type,
            "total_episodes": len(self._rows),
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": FILE_MEGABYTES,
            "video_files_size_in_mb": 200,
            "fps": writer.fps,
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": DATA_PATH,
            "video_path": None,
            "features": {name: one.to_json() for name, one in self._features.items()},
            "unidiff": {
                "settings": writer.settings,
                "num_failed": sum(attempt.length == 0 for attempt in attempts),
            },
        }
