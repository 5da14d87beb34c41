"""What `meta/` says of a LeRobotDataset v3: read and checked before any frame is."""

from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .features import INDEX_FEATURES, Feature
from .folder import DATA_PATH, INFO_PATH, STATISTICS_PATH, TASKS_PATH, read_json, read_tasks
from .statistics import STATISTICS, Statistics

_COLUMNS = [
    "episode_index",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
]


@dataclass(frozen=True)
class EpisodePlace:
    """Where the frames of an episode are.

    Attributes:
        number: of the episode.
        length: frames.
        path: file that holds them.
        first_row: of its frames in that file.
        first_index: of its frames in the data set.
    """

    number: int
    length: int
    path: Path
    first_row: int
    first_index: int


@dataclass(frozen=True)
class Description:
    """Everything about a data set but its frames.

    Attributes:
        info: `meta/info.json`.
        features: name -> feature, without those that every data set has.
        statistics: name -> `STATISTICS` -> array.
        instructions: the sentences by task index.
        places: of each episode, in order.
    """

    info: dict[str, Any]
    features: dict[str, Feature]
    statistics: dict[str, Statistics]
    instructions: list[str]
    places: list[EpisodePlace]


def read_description(folder: Path) -> Description:
    """Read and check `meta/`.

    Raises:
        FileNotFoundError: if a file is missing, named with what it is for.
        ValueError: if the version is another, a feature is of a kind that is not read, statistics
            are missing, or the table of episodes is not contiguous.
    """
    info: dict[str, Any] = read_json(folder / INFO_PATH, "features and counts")
    _check_version(info)
    _check_info(folder / INFO_PATH, info)
    features = {
        name: Feature.from_json(entry)
        for name, entry in info["features"].items()
        if name not in INDEX_FEATURES
    }
    return Description(
        info=info,
        features=features,
        statistics=_read_statistics(folder / STATISTICS_PATH, features),
        instructions=read_tasks(folder / TASKS_PATH),
        places=_read_places(folder, info),
    )


def _check_version(info: dict[str, Any]) -> None:
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise ValueError(
            f"expected a LeRobotDataset of version v3.x; got {version}. lerobot converts older "
            "ones (lerobot.datasets.v30.convert_dataset_v21_to_v30)"
        )


def _check_info(path: Path, info: dict[str, Any]) -> None:
    """Raise ValueError if `meta/info.json` lacks what the reader needs."""
    kinds = {
        "fps": Real,
        "features": dict,
        "data_path": str,
        "total_episodes": int,
        "total_frames": int,
    }
    for name, kind in kinds.items():
        if not isinstance(info.get(name), kind):
            raise ValueError(
                f"expected {name!r} ({kind.__name__}) in {path}; got {info.get(name)!r}. Restore it"
            )
    if not info["fps"] > 0:
        raise ValueError(f"expected fps > 0 in {path}; got {info['fps']}")
    try:
        info["data_path"].format(chunk_index=0, file_index=0)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"expected a data_path in {path} with the places {{chunk_index}} and {{file_index}} "
            f"alone, such as {DATA_PATH!r}; got {info['data_path']!r}"
        ) from error
    for name, entry in info["features"].items():
        if not isinstance(entry, dict) or not {"dtype", "shape"} <= set(entry):
            raise ValueError(f"expected dtype and shape of {name!r} in {path}; got {entry}")


def _read_statistics(path: Path, features: dict[str, Feature]) -> dict[str, Statistics]:
    entries = read_json(path, "statistics for normalisation")
    for name in features:
        missing = set(STATISTICS) - set(entries.get(name, {}))
        if missing:
            raise ValueError(
                f"expected the statistics {sorted(missing)} of {name!r} in {path}; compute them "
                "again from the data, or write the data set again"
            )
    return {
        name: {key: np.array(values) for key, values in entry.items()}
        for name, entry in entries.items()
    }


def _read_places(folder: Path, info: dict[str, Any]) -> list[EpisodePlace]:
    """The table of episodes, in which each must begin where the last one ended."""
    places: list[EpisodePlace] = []
    first_of_file: dict[Path, int] = {}
    at = 0
    for number, row in enumerate(_read_rows(folder)):
        is_next = row["episode_index"] == number and row["dataset_from_index"] == at
        if not is_next or row["dataset_to_index"] - at != row["length"] or row["length"] < 1:
            raise ValueError(
                f"expected episode {number} to begin at frame {at} in the table of episodes of "
                f"{folder}; got {row}. A part of meta/episodes is missing or out of order"
            )
        path = folder / info["data_path"].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        first = first_of_file.setdefault(path, at)
        places.append(EpisodePlace(number, row["length"], path, at - first, at))
        at = row["dataset_to_index"]
    said = (info["total_episodes"], info["total_frames"])
    if said != (len(places), at):
        raise ValueError(
            f"expected {said[0]} episodes and {said[1]} frames in {folder}, as {INFO_PATH} says; "
            f"the table of episodes has {len(places)} and {at}"
        )
    return places


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "meta/episodes").rglob("*.parquet"))
    if not paths:
        raise FileNotFoundError(
            f"expected the table of episodes under {folder / 'meta/episodes'}; restore it. Was the "
            "data set finished (lerobot: finalize())?"
        )
    tables = []
    for path in paths:
        missing = set(_COLUMNS) - set(pq.read_schema(path).names)
        if missing:
            raise ValueError(f"expected the columns {sorted(missing)} in {path}; restore the file")
        tables.append(pq.read_table(path, columns=_COLUMNS))
    return pa.concat_tables(tables).sort_by("episode_index").to_pylist()
