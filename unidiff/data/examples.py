"""A user's examples: JSONL, JSON, CSV and parquet files, image folders, names on a hub.

All of them go through `datasets`; here they are found, their columns checked, and their pictures
opened. A picture that cannot be decoded is never left out in silence.
"""

# Shapes: N examples.

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_READERS = {
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
ON_BAD = ("raise", "skip")
_SHOWN = 3  # undecodable examples that an error names


@dataclass(frozen=True)
class Examples(Sequence[Mapping[str, Any]]):
    """Examples of one split, in the order of the file.

    Attributes:
        rows: their columns; pictures as the file has them.
        root: folder that relative paths of pictures start from.
        columns: names of the columns with pictures.
        bad: index in the file of each example that was left out -> what is wrong with it.
    """

    rows: Sequence[Mapping[str, Any]]
    root: Path
    columns: tuple[str, ...] = ()
    bad: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Examples that are left."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """One example with its pictures opened, or several as a list."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = dict(self.rows[index])
        for name in self.columns:
            if row.get(name) is not None:
                row[name] = opened_picture(row[name], self.root)
        return row


def load_examples(
    source: str | Path,
    columns: Collection[str],
    *,
    split: str = "train",
    picture_columns: Collection[str] = ("image",),
    on_bad: str = "raise",
    limit: int | None = None,
) -> Examples:
    """Examples of a data set.

    Args:
        source: a .jsonl, .json, .csv or .parquet file; a folder of pictures with a
            `metadata.jsonl` or `metadata.csv` (column `file_name`), or of sub-folders that name
            classes; a folder that `datasets` has saved; or a name on a hub.
        columns: that the examples must have.
        split: of a data set that has several.
        picture_columns: columns that hold a picture: a path (relative to the file's folder), bytes,
            or what `datasets` decodes.
        on_bad: "raise" on pictures that cannot be decoded, or "skip" and count them.
        limit: largest number of examples.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column or split is missing, there are no examples, or pictures cannot be
            decoded; says which.
    """
    if on_bad not in ON_BAD:
        raise ValueError(f"on_bad must be one of {ON_BAD}, got {on_bad!r}")
    table, root = _table(source, split)
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise ValueError(
            f"{source} lacks the columns {missing}; it has {sorted(table.column_names)}. Rename "
            "yours, or add them"
        )
    pictures = tuple(name for name in table.column_names if name in set(picture_columns))
    table = _undecoded(table, pictures)
    if limit is not None:
        table = table.select(range(min(limit, len(table))))
    if not len(table):
        raise ValueError(f"{source} holds no examples in the split {split!r}")
    return _checked(Examples(table, root, pictures), source, on_bad)


def opened_picture(value: Any, root: Path) -> Any:
    """RGB PIL picture of a path, bytes, `datasets`' record of either, or a picture.

    Raises:
        ValueError: if it cannot be decoded.
        FileNotFoundError: if there is no such file.
    """
    import io

    from PIL import Image

    if isinstance(value, Image.Image):
        return value.convert("RGB")
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        path = Path(value) if Path(value).is_absolute() else root / value
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file")
        value = path.read_bytes()
    if not isinstance(value, bytes):
        raise ValueError(f"expected a path or the bytes of a picture, got {type(value).__name__}")
    try:
        with Image.open(io.BytesIO(value)) as picture:
            return picture.convert("RGB")
    except Image.UnidentifiedImageError as error:  # its own words name a place in memory
        raise ValueError("no picture of a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture, or damaged or cut short ({error})") from error


def _table(source: str | Path, split: str) -> tuple[Any, Path]:
    """(`datasets.Dataset` of a split, folder that relative paths start from)."""
    import datasets

    path = Path(source)
    if path.suffix in _READERS:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file")
        try:
            loaded = datasets.load_dataset(
                _READERS[path.suffix], data_files={split: str(path)}, split=split
            )
        except (StopIteration, datasets.exceptions.DatasetGenerationError) as error:
            why = error.__cause__ or "it is empty"
            raise ValueError(
                f"{path} holds no {path.suffix[1:]} rows that can be read: {why}"
            ) from error
        return loaded, path.parent
    if path.is_dir() and (path / "dataset_info.json").is_file():
        return datasets.load_from_disk(str(path)), path
    if path.is_dir():
        return _folder(path, split), path
    if path.suffix or str(source).startswith((".", "/")):
        raise FileNotFoundError(f"{source} is no file or folder; files end in {sorted(_READERS)}")
    return datasets.load_dataset(str(source), split=split), Path()


def _folder(path: Path, split: str) -> Any:
    """Pictures of a folder: with the metadata beside them, or the sub-folder's name as `label`."""
    import datasets

    inside = path / split if (path / split).is_dir() else path
    for name in ("metadata.jsonl", "metadata.csv"):
        if (inside / name).is_file():
            table = _table(inside / name, split)[0]
            if "file_name" not in table.column_names:
                raise ValueError(f"{inside / name} needs a column file_name, the picture's path")
            places = [str((inside / one).resolve()) for one in table["file_name"]]
            return table.remove_columns("file_name").add_column("image", places)
    found = sorted(one for one in inside.rglob("*") if one.suffix.lower() in _PICTURES)
    if not found:
        raise ValueError(f"{inside} holds no pictures with the endings {_PICTURES}")
    return datasets.Dataset.from_dict(
        {
            "image": [str(one.resolve()) for one in found],
            "label": [one.parent.name if one.parent != inside else "" for one in found],
        }
    )


def _undecoded(table: Any, pictures: Sequence[str]) -> Any:
    """The table with pictures as `datasets` stores them, so that a bad one can be counted."""
    import datasets

    for name in pictures:
        if isinstance(table.features[name], datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    return table


def _checked(examples: Examples, source: str | Path, on_bad: str) -> Examples:
    """The examples whose pictures can be opened; raises ValueError for others unless skipped."""
    bad = dict(_bad_pictures(examples)) if examples.columns else {}
    if not bad:
        return examples
    shown = "; ".join(f"example {index}: {why}" for index, why in list(bad.items())[:_SHOWN])
    if on_bad == "raise":
        raise ValueError(
            f"{len(bad)} of {len(examples)} pictures of {source} cannot be decoded ({shown}): mend "
            "them, or leave them out with on_bad='skip' (--skip-bad)"
        )
    kept = [index for index in range(len(examples)) if index not in bad]
    if not kept:
        raise ValueError(f"none of the {len(bad)} pictures of {source} can be decoded ({shown})")
    rows: Any = examples.rows
    return Examples(rows.select(kept), examples.root, examples.columns, bad)


def _bad_pictures(examples: Examples) -> Iterator[tuple[int, str]]:
    """(index, what is wrong) of each example with a picture that cannot be opened."""
    for index, row in enumerate(examples.rows):
        for name in examples.columns:
            try:
                if row.get(name) is not None:
                    opened_picture(row[name], examples.root)
            except (ValueError, OSError) as error:
                yield index, str(error)
                break
