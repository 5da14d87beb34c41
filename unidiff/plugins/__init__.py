"""What a plugin implements, and the registry that finds plugins.

A plugin is a distribution whose entry point in the group `unidiff.plugins` names a `Plugin`: its
tasks, and the kinds of tokens that it brings. The names below are the whole interface; each is
loaded from its module when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answer import Answer
    from .answers import answer_examples
    from .contract import PluginContract
    from .conversations import ChatTask, shown, user
    from .evaluation import Evaluation, EvaluationReport, EvaluationRequest
    from .extending import add_modalities
    from .holes import InfillTask
    from .modality import Modality
    from .plugin import API_VERSION, Plugin
    from .registry import (
        all_plugins,
        find_task,
        installed_plugins,
        load_plugin,
        register,
        registered,
    )
    from .task import DemoExample, Example, LoRADefaults, Metric, Task

_HOMES = {
    "API_VERSION": "plugin",
    "Answer": "answer",
    "ChatTask": "conversations",
    "DemoExample": "task",
    "Evaluation": "evaluation",
    "EvaluationReport": "evaluation",
    "EvaluationRequest": "evaluation",
    "Example": "task",
    "InfillTask": "holes",
    "LoRADefaults": "task",
    "Metric": "task",
    "Modality": "modality",
    "Plugin": "plugin",
    "PluginContract": "contract",
    "Task": "task",
    "add_modalities": "extending",
    "all_plugins": "registry",
    "answer_examples": "answers",
    "find_task": "registry",
    "installed_plugins": "registry",
    "load_plugin": "registry",
    "register": "registry",
    "registered": "registry",
    "shown": "conversations",
    "user": "conversations",
}

__all__ = [
    "API_VERSION",
    "Answer",
    "ChatTask",
    "DemoExample",
    "Evaluation",
    "EvaluationReport",
    "EvaluationRequest",
    "Example",
    "InfillTask",
    "LoRADefaults",
    "Metric",
    "Modality",
    "Plugin",
    "PluginContract",
    "Task",
    "add_modalities",
    "all_plugins",
    "answer_examples",
    "find_task",
    "installed_plugins",
    "load_plugin",
    "register",
    "registered",
    "shown",
    "user",
]


def __getattr__(name: str) -> Any:
    """Name of the interface, imported from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names in this module, the ones not loaded yet included."""
    return sorted({*globals(), *__all__})
