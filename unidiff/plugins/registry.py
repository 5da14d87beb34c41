"""Which plugins are installed: listed from metadata, imported when one is asked for.

A plugin that cannot be loaded is reported and leaves the others alone. `UNIDIFF_PLUGINS` may hold
the names that are allowed, separated by commas; empty allows none.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from typing import Any

from .modality import Modality
from .plugin import Plugin, check_plugin
from .task import Task

GROUP = "unidiff.plugins"
COMMAND_GROUP = "unidiff.commands"
ALLOW_LIST = "UNIDIFF_PLUGINS"
_REQUIRED = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Installed:
    """An entry point, as the metadata of its distribution describes it.

    Attributes:
        name: of the plugin or command.
        value: "module:attribute".
        distribution: that brings it.
        version: of the distribution.
    """

    name: str
    value: str
    distribution: str
    version: str


_registered: dict[str, Plugin] = {}


def installed_plugins() -> list[Installed]:
    """The plugins of this environment that are allowed, by name; nothing is imported."""
    allowed = _allowed_names()
    found = [one for one in _entries(GROUP) if allowed is None or one.name in allowed]
    return sorted(found, key=lambda one: (one.name, one.distribution))


def installed_commands() -> list[Installed]:
    """The commands that allowed plugins add, by name; nothing is imported."""
    distributions = {one.distribution for one in installed_plugins()}
    found = [one for one in _entries(COMMAND_GROUP) if one.distribution in distributions]
    return sorted(found, key=lambda one: (one.name, one.distribution))


def load_command(name: str) -> Callable[..., None] | None:
    """The function of a plugin's command; None if no plugin has it.

    Raises:
        ValueError: if two distributions bring it.
        ImportError: if it cannot be loaded.
    """
    one = _only(name, installed_commands(), "command")
    return None if one is None else _imported(one)


def load_plugin(name: str) -> Plugin:
    """A plugin by name: registered here, or installed.

    Raises:
        ValueError: if there is none, it is not allowed, or two distributions bring it.
        ImportError: if it cannot be loaded, or does not fit this version.
    """
    if name in _registered:
        return _registered[name]
    one = _only(name, installed_plugins(), "plugin")
    if one is None:
        names = [found.name for found in installed_plugins()] + list(_registered)
        hidden = name in {found.name for found in _entries(GROUP)}
        why = f"{ALLOW_LIST} does not name it" if hidden else "install the package that brings it"
        raise ValueError(f"no plugin {name!r}: {why}; there are {sorted(names)}")
    return _loaded(one)


def all_plugins() -> tuple[dict[str, Plugin], dict[str, str]]:
    """(plugins by name, errors by name of those that cannot be loaded)."""
    plugins, errors = dict(_registered), {}
    for name in sorted({one.name for one in installed_plugins()} - set(plugins)):
        try:
            plugins[name] = load_plugin(name)
        except (ImportError, ValueError) as error:
            errors[name] = str(error)
    return plugins, errors


def absent_plugins() -> list[str]:
    """Distributions of our extra `plugins` that are not installed."""
    absent = []
    for line in requires("unidiff") or []:
        requirement, _, condition = line.partition(";")
        if 'extra == "plugins"' not in condition.replace("'", '"'):
            continue
        name = _REQUIRED.match(requirement.strip())
        if name is not None and not _is_installed(name.group()):
            absent.append(name.group())
    return sorted(absent)


def _is_installed(distribution: str) -> bool:
    """Whether there is such a distribution."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def find_task(name: str) -> Task:
    """A task by name, "plugin/task" where two plugins have one of that name.

    Raises:
        ValueError: if no plugin, or more than one, has it; says which could not be loaded.
    """
    plugin_name, _, task_name = name.rpartition("/")
    if plugin_name:
        return load_plugin(plugin_name).task(task_name)
    plugins, errors = all_plugins()
    owners = [one for one in plugins.values() if any(task.name == name for task in one.tasks)]
    if len(owners) == 1:
        return owners[0].task(name)
    if owners:
        names = [f"{owner.name}/{name}" for owner in owners]
        raise ValueError(f"several plugins have a task {name!r}: say which, one of {names}")
    known = sorted(task.name for plugin in plugins.values() for task in plugin.tasks)
    broken = "".join(f"; plugin {one!r} is broken: {why}" for one, why in errors.items())
    raise ValueError(f"no installed plugin has a task {name!r}; the tasks are {known}{broken}")


def find_modality(name: str, plugin: str | None = None) -> type[Modality]:
    """The class of a further modality.

    Args:
        name: of the modality.
        plugin: that brings it; None: any one.

    Raises:
        ImportError: if the plugin is not installed, not allowed or cannot be loaded, or brings no
            such modality.
        ValueError: if no plugin was named, and none or several bring it.
    """
    if plugin is None:
        plugins, errors = all_plugins()
        owners = [key for key, one in plugins.items() if name in _brought(one)]
        if len(owners) != 1:
            broken = f" (broken: {errors})" if errors else ""
            raise ValueError(
                f"the modality {name!r} must be brought by one installed plugin, got {owners}"
                f"{broken}: install it, or name the allowed plugins in {ALLOW_LIST}"
            )
        return _brought(plugins[owners[0]])[name]
    try:
        brought = _brought(load_plugin(plugin))
    except ValueError as error:
        raise ImportError(f"the checkpoint holds {name!r} of plugin {plugin!r}: {error}") from error
    if name not in brought:
        raise ImportError(f"plugin {plugin!r} brings no modality {name!r} but {sorted(brought)}")
    return brought[name]


def _brought(plugin: Plugin) -> dict[str, type[Modality]]:
    """A plugin's modalities by name."""
    return {one.name: one for one in plugin.modalities}


@contextmanager
def registered(plugin: Plugin) -> Iterator[Plugin]:
    """A plugin that is known for a while without being installed: tests, notebooks.

    Raises:
        ValueError: if one of that name is registered already.
    """
    register(plugin)
    try:
        yield plugin
    finally:
        _registered.pop(plugin.name, None)


def register(plugin: Plugin) -> None:
    """Make a plugin known to this process without installing it.

    Raises:
        ValueError: if one of that name is registered already, or it does not fit this version.
    """
    if plugin.name in _registered:
        raise ValueError(f"a plugin {plugin.name!r} is registered already")
    _registered[plugin.name] = check_plugin(plugin.name, plugin)


def _allowed_names() -> set[str] | None:
    """Names that `UNIDIFF_PLUGINS` allows; None: all."""
    value = os.environ.get(ALLOW_LIST)
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}


def _entries(group: str) -> list[Installed]:
    """Entry points of a group."""
    return [_described(point) for point in entry_points(group=group)]


def _described(point: EntryPoint) -> Installed:
    """An entry point's metadata."""
    distribution = point.dist
    name = "unknown" if distribution is None else distribution.name
    version = "" if distribution is None else distribution.version
    return Installed(point.name, point.value, name, version)


def _only(name: str, found: list[Installed], kind: str) -> Installed | None:
    """The one entry of that name; raises ValueError if two distributions bring it."""
    same = sorted({one for one in found if one.name == name}, key=lambda one: one.distribution)
    if len(same) > 1:
        owners = " and ".join(one.distribution for one in same)
        raise ValueError(
            f"{owners} both bring a {kind} {name!r}: uninstall one, or name the allowed plugins in "
            f"{ALLOW_LIST}"
        )
    return same[0] if same else None


@cache
def _loaded(one: Installed) -> Plugin:
    """The plugin of an entry point; raises ImportError whatever goes wrong in it."""
    value = _imported(one)
    try:
        return check_plugin(one.name, value)
    except Exception as error:
        raise ImportError(f"plugin {one.name!r} of {one.distribution}: {error}") from error


def _imported(one: Installed) -> Any:
    """What an entry point names; raises ImportError whatever goes wrong in it."""
    try:
        return EntryPoint(one.name, one.value, "").load()
    except (Exception, SystemExit) as error:  # a plugin's own code must not end the host
        kind = type(error).__name__
        raise ImportError(
            f"{one.name!r} of {one.distribution} {one.version} cannot be loaded ({kind}: {error})"
        ) from error
