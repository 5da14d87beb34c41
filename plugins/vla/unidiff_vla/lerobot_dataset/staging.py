"""A recording under way: one file an episode and a log of attempts, so that it can be resumed.

It lies in `<folder>.partial`. An episode's file is renamed into place before its line is logged: a
crash between the two costs that one attempt, which is made again under the same name.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .columns import array_of, column_of
from .features import INDEX_FEATURES, Feature, check_frames
from .folder import read_json, write_json, write_table


@dataclass(frozen=True)
class Attempt:
    """One line of the log.

    Attributes:
        key: name of the attempt, unique, usable as a file's.
        length: frames; 0 of a failure, which holds none.
        instruction: what was asked for.
        facts: more about it, strings and numbers.
    """

    key: str
    length: int
    instruction: str
    facts: dict[str, Any] = field(default_factory=dict)


class Staging:
    """Episodes that wait to be written as a data set.

    Args:
        folder: of the recording; made if absent, resumed if it holds one of the same plan.
        features: of a frame, without those that every data set has.
        plan: what the recording is: frames per second, robot and the like.

    Raises:
        ValueError: if the folder holds a recording of another plan, or a feature has a name that
            every data set uses itself.
    """

    def __init__(
        self, folder: Path, features: Mapping[str, Feature], plan: Mapping[str, Any]
    ) -> None:
        taken = set(features) & set(INDEX_FEATURES)
        if taken:
            raise ValueError(
                f"features {sorted(taken)} are filled in by the writer; leave them out"
            )
        self.folder, self.features = folder, dict(features)
        wanted = {
            "features": {name: feature.to_json() for name, feature in features.items()},
            "plan": dict(plan),
        }
        (folder / "episodes").mkdir(parents=True, exist_ok=True)
        self._check_plan(folder / "plan.json", json.loads(json.dumps(wanted)))
        self.attempts = {attempt.key: attempt for attempt in self._read_log()}

    def add(self, attempt: Attempt, frames: Mapping[str, np.ndarray]) -> None:
        """Keep an episode.

        Args:
            attempt: its line; `length` must be that of the frames.
            frames: name -> (length, *shape).

        Raises:
            ValueError: as `check_frames`, or if the length differs.
        """
        length = check_frames(self.features, frames)
        if length != attempt.length:
            raise ValueError(f"expected {attempt.length} frames of {attempt.key}; got {length}")
        columns = {name: column_of(one, frames[name]) for name, one in self.features.items()}
        write_table(self._path(attempt.key), pa.table(columns))
        self._log(attempt)

    def add_failure(self, key: str, instruction: str, facts: Mapping[str, Any]) -> None:
        """Note that an attempt failed, so that it is counted and not made again."""
        self._log(Attempt(key, 0, instruction, dict(facts)))

    def episodes(self) -> Iterator[tuple[Attempt, dict[str, np.ndarray]]]:
        """Every kept episode with its frames, in the order of the log."""
        for attempt in self.attempts.values():
            if attempt.length:
                table = pq.read_table(self._path(attempt.key))
                yield (
                    attempt,
                    {name: array_of(name, one, table[name]) for name, one in self.features.items()},
                )

    def _path(self, key: str) -> Path:
        return self.folder / "episodes" / f"{key}.parquet"

    def _log(self, attempt: Attempt) -> None:
        with (self.folder / "attempts.jsonl").open("a") as log:
            log.write(json.dumps(asdict(attempt)) + "\n")
        self.attempts[attempt.key] = attempt

    def _read_log(self) -> list[Attempt]:
        """The attempts logged; a last line that a crash cut short is removed."""
        path = self.folder / "attempts.jsonl"
        text = path.read_text() if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        return [Attempt(**json.loads(line)) for line in whole.splitlines()]

    def _check_plan(self, path: Path, wanted: dict[str, Any]) -> None:
        if not path.is_file():
            write_json(path, wanted)
            return
        found = read_json(path, "the plan of a recording")
        if found != wanted:
            parts = [part for part in wanted if found.get(part) != wanted[part]]
            shown = {part: (found.get(part), wanted[part]) for part in parts}
            raise ValueError(
                f"{self.folder} holds a recording of another plan; found and wanted: {shown}. "
                "Resume with the same settings, or remove the folder"
            )
