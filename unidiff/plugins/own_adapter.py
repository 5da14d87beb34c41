"""The adapter that comes with a task: read while the task is asked of the bundled checkpoint.

A task that the bundled checkpoint does not know may bring what it lacks (`Task.adapter`). Commands
read it where they run that checkpoint without another adapter; `model.load_adapter(task.adapter)`
does the same in Python.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unidiff.model.adapters import BUNDLED, base_reference
from unidiff.model.row_adapters import RowAdapters

from .task import Task

_PREFIX = "own_"  # of the name that such an adapter has in a model


def reads_own_adapter(task: Task, model: Any) -> bool:
    """Whether a task asked of this model is answered with the task's own adapter.

    It is where the task has one and the model is the bundled checkpoint without another adapter.
    """
    others = [one for one in getattr(model, "peft_config", {}) if not one.startswith(_PREFIX)]
    return task.adapter is not None and not others and base_reference(model) == BUNDLED


@contextmanager
def own_adapter(task: Task, model: Any) -> Iterator[bool]:
    """Turn a task's own adapter on for a while, where `reads_own_adapter`; yields whether it is.

    Behind it the model computes what it did before, bit for bit; one may stand inside another.

    Raises:
        ValueError: if the adapter belongs to another base.
        FileNotFoundError: if a file of it is missing.
    """
    if not reads_own_adapter(task, model):
        yield False
        return
    name, before = _PREFIX + task.name, RowAdapters(model).active
    if name in getattr(model, "peft_config", {}):
        model.enable_adapters()
        model.set_adapter(name)
    else:
        model.load_adapter(task.adapter, adapter_name=name)
    try:
        yield True
    finally:
        if before:
            model.set_adapter(before)
        else:
            model.disable_adapters()
