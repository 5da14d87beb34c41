"""The demonstration of every installed task: each plugin says what to ask, and what is right."""

from collections.abc import Sequence

from unidiff.model.adapters import is_adapter_folder, read_record
from unidiff.plugins.answer import Answer
from unidiff.plugins.own_adapter import reads_own_adapter
from unidiff.plugins.registry import absent_plugins, all_plugins
from unidiff.plugins.task import DemoExample, Task

from .session import Session
from .showcase import Row


def ask_plugins(session: Session, seed: int) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Rows of every section, and why a plugin or task is not shown.

    Args:
        session: who answers.
        seed: decides what is shown.
    """
    plugins, missing = all_plugins()
    missing |= dict.fromkeys(absent_plugins(), "not installed")
    learnt = read_record(session.folder).task if is_adapter_folder(session.folder) else ""
    sections: dict[str, list[Row]] = {}
    for plugin in plugins.values():
        for task in plugin.tasks:
            lacking = sorted(task.modalities - set(session.processor.layout.ranges))
            if lacking:
                missing[task.name] = f"this checkpoint has no {' and no '.join(lacking)} tokens"
                continue
            is_known = task.is_in_base or task.name == learnt
            if not is_known and not reads_own_adapter(task, session.model):
                missing[task.name] = f"first: unidiff finetune --task {task.name} --out ADAPTER"
                continue
            for title, rows in _rows(session, task, seed).items():
                sections.setdefault(title, []).extend(rows)
    return sections, missing


def _rows(session: Session, task: Task, seed: int) -> dict[str, list[Row]]:
    """Rows of one task by section; examples that share their options are asked together."""
    sections: dict[str, list[Row]] = {}
    shown = list(task.demo(seed))
    for part in _runs(shown):
        options = {**part[0].options, "seed": seed}
        answers = session.ask(task, [one.example for one in part], options)
        for one, answer in zip(part, answers, strict=True):
            title = one.section or task.summary.rstrip(".")
            sections.setdefault(title, []).append(_row(task, one, answer))
    return sections


def _runs(shown: Sequence[DemoExample]) -> list[list[DemoExample]]:
    """Neighbouring examples with the same options."""
    runs: list[list[DemoExample]] = []
    for one in shown:
        if runs and runs[-1][0].options == one.options:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _row(task: Task, shown: DemoExample, answer: Answer) -> Row:
    """One line of the table and one panel of the gallery."""
    value = answer.value
    return Row.of(
        task.name,
        shown.given,
        answer,
        shown.truth,
        None if shown.is_right is None else shown.is_right(value),
        () if shown.pictures is None else list(shown.pictures(value)),
        None if shown.said is None else shown.said(value),
        shown.labels,
    )
