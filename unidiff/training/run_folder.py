"""Folders of runs: resumed by the same run, refused to another."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
