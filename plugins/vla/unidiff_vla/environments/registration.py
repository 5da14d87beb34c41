"""Makes the environments known to gymnasium; imports no simulator."""

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any

from .instructions import METAWORLD_TASKS

NAMESPACE = "unidiff_vla"
TABLETOP_TASKS = ("reach", "push")
PUSHT_TASKS = ("pusht", "pusht-pose")  # by the picture; with the T's place in the state


def environment_id(task: str) -> str:
    """The name that `gymnasium.make` knows a task by.

    Raises:
        ValueError: if the task is unknown.
    """
    if task not in _entries():
        raise ValueError(f"task must be one of {tuple(_entries())}; got {task=}")
    return _entries()[task].id


def register_environments() -> None:
    """Register every environment, once; does nothing where gymnasium is not installed."""
    if importlib.util.find_spec("gymnasium") is None:
        return
    import gymnasium

    for entry in _entries().values():
        if entry.id not in gymnasium.registry:
            gymnasium.register(entry.id, entry_point=entry.point, kwargs=entry.arguments)


@dataclass(frozen=True)
class _Entry:
    """An environment: its id, "module:class", and the arguments that make it this task."""

    id: str
    point: str
    arguments: dict[str, Any]


@cache
def _entries() -> dict[str, _Entry]:
    """Every environment of ours by task."""
    metaworld, table = f"{__package__}.metaworld_env:MetaWorldEnv", f"{__package__}.tabletop_env"
    entries = {
        task: _Entry(f"{NAMESPACE}/MetaWorld-{task}-v0", metaworld, {"task": task})
        for task in METAWORLD_TASKS
    }
    pusht = f"{__package__}.pusht_env:PushTEnv"
    by_picture, by_pose = PUSHT_TASKS
    entries[by_picture] = _Entry(f"{NAMESPACE}/PushT-v0", pusht, {})
    entries[by_pose] = _Entry(f"{NAMESPACE}/PushT-pose-v0", pusht, {"feels_pose": True})
    for task in TABLETOP_TASKS:
        entries[f"tabletop-{task}"] = _Entry(
            f"{NAMESPACE}/Tabletop-{task}-v0", f"{table}:TabletopEnv", {"task": task}
        )
    return entries
