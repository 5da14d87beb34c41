"""Folders of runs and of what they make: written whole or not at all, resumed by the same run."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which takes the target's place when the block ends without error.

    Args:
        target: replaced if it is there.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    for path in partial.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes 0o600, which others could not read
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def check_same_settings(
    path: Path, settings: Mapping[str, Any], others: str = "other settings"
) -> None:
    """Write a run's settings into its folder, or compare with those that are there.

    Args:
        path: of the file.
        settings: of the run, for JSON.
        others: what differing ones are called.

    Raises:
        ValueError: if they differ.
    """
    wanted = json.loads(json.dumps(settings))
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in wanted if there.get(name) != wanted[name])
        if changed:
            raise ValueError(
                f"{path.parent} holds a run with {others} ({', '.join(changed)}): give the same "
                "ones to go on, or another folder"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
