"""Where the files of a LeRobotDataset v3 are, and how one is written whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO_PATH = "meta/info.json"
STATISTICS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
FILES_PER_CHUNK = 1000


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2))
    os.replace(temporary, path)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet table to a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def read_json(path: Path, purpose: str) -> Any:
    """The JSON of a file.

    Args:
        path: of the file.
        purpose: what it says, for the error.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"expected {path} ({purpose}); is {path.parent.parent} the folder of a LeRobotDataset "
            f"{VERSION}?"
        )
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"expected JSON in {path} ({purpose}); {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object in {path} ({purpose}); got {found!r:.80}")
    return found


def tasks_table(tasks: list[str]) -> pa.Table:
    """The table of tasks: `task_index`, and the sentence as pandas' index."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": tasks})
    columns = [
        _pandas_column("task_index", "int64", "int64"),
        _pandas_column("task", "unicode", "object"),
    ]
    pandas: Mapping[str, Any] = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": columns,
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def read_tasks(path: Path) -> list[str]:
    """The sentences by `task_index`.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if the indices are not 0, 1, 2, ... or there is no column of sentences.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected {path}, the instructions by task_index; restore it")
    table = pq.read_table(path)
    sentences = [
        name
        for name in table.column_names
        if pa.types.is_string(table.schema.field(name).type)
        or pa.types.is_large_string(table.schema.field(name).type)
    ]
    if "task_index" not in table.column_names or len(sentences) != 1:
        raise ValueError(
            f"expected task_index and one column of sentences in {path}; got {table.column_names}"
        )
    rows = dict(zip(table["task_index"].to_pylist(), table[sentences[0]].to_pylist(), strict=True))
    if sorted(rows) != list(range(len(rows))):
        raise ValueError(f"expected task_index 0, 1, 2, ... in {path}; got {sorted(rows)}")
    return [rows[index] for index in range(len(rows))]


def _pandas_column(name: str, pandas_type: str, numpy_type: str) -> dict[str, Any]:
    return {
        "name": name,
        "field_name": name,
        "pandas_type": pandas_type,
        "numpy_type": numpy_type,
        "metadata": None,
    }
