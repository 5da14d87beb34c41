"""What an entry point of the group `unidiff.plugins` names: tasks and modalities."""

import re
from dataclasses import dataclass
from typing import Any

from unidiff.tokens.layout import MODALITIES

from .modality import Modality
from .task import Task

API_VERSION = 1
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Plugin:
    """The tasks and the kinds of tokens that one distribution adds.

    Attributes:
        name: the entry point's name.
        tasks: one object for each task.
        modalities: classes of `Modality` that it brings; their `name` is known without an object.
        api_version: version of this interface that it was written for.
    """

    name: str
    tasks: tuple[Task, ...] = ()
    modalities: tuple[type[Modality], ...] = ()
    api_version: int = API_VERSION

    def task(self, name: str) -> Task:
        """The task of that name; raises ValueError if there is none."""
        for task in self.tasks:
            if task.name == name:
                return task
        names = [task.name for task in self.tasks]
        raise ValueError(f"plugin {self.name!r} has no task {name!r}; it has {names}")


def check_plugin(name: str, value: Any) -> Plugin:
    """The plugin of an entry point; a callable is called without arguments.

    Args:
        name: the entry point's name.
        value: what it names.

    Raises:
        TypeError: if that is no `Plugin`, or a task lacks a part of the protocol.
        ValueError: if its version, its name or a task's name does not fit.
    """
    plugin = value() if callable(value) and not isinstance(value, Plugin) else value
    if not isinstance(plugin, Plugin):
        raise TypeError(f"the entry point must name a unidiff.plugins.Plugin, got {plugin!r}")
    if plugin.api_version != API_VERSION:
        raise ValueError(
            f"it was written for version {plugin.api_version} of the plugin interface, and this "
            f"unidiff has version {API_VERSION}: install a matching version of the plugin"
        )
    if plugin.name != name:
        raise ValueError(f"its name is {plugin.name!r} but the entry point's is {name!r}")
    for task in plugin.tasks:
        _check_task(task)
    for modality in plugin.modalities:
        _check_modality(modality, name)
    names = [modality.name for modality in plugin.modalities]
    if len(set(names)) != len(names):
        raise ValueError(f"it brings two modalities of one name: {sorted(names)}")
    return plugin


def _check_modality(modality: type[Modality], plugin: str) -> None:
    """Raise an error unless this is a modality's class that names its plugin."""
    parts = [*_parts_of(Modality), "name", "plugin"]
    missing = [part for part in parts if not hasattr(modality, part)]
    if missing:
        raise TypeError(f"{modality!r} is no unidiff.plugins.Modality: it lacks {missing}")
    if not _NAME.fullmatch(modality.name) or modality.name in MODALITIES:
        raise ValueError(
            f"a modality's name must be lower case letters, digits and underscores and none of "
            f"{MODALITIES}, got {modality.name!r}"
        )
    if modality.plugin != plugin:
        raise ValueError(
            f"modality {modality.name!r} names plugin {modality.plugin!r}, not its own"
        )


def _check_task(task: Any) -> None:
    """Raise an error unless this is a task with a good name."""
    if not isinstance(task, Task):
        missing = [part for part in _task_parts() if not hasattr(task, part)]
        raise TypeError(f"{task!r} is no unidiff.plugins.Task: it lacks {missing}")
    if not _NAME.fullmatch(task.name):
        raise ValueError(
            f"a task's name must be lower case letters, digits and underscores, got {task.name!r}"
        )


def _task_parts() -> list[str]:
    """Attributes and methods of a task."""
    return sorted({*Task.__annotations__, *_parts_of(Task)})


def _parts_of(protocol: type) -> list[str]:
    """Public methods and given values of a protocol."""
    return [name for name in vars(protocol) if not name.startswith("_")]
