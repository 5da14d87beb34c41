"""`unidiff finetune` and `unidiff merge`: an adapter for a task, and a checkpoint of both."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.plugins.registry import all_plugins, find_task
from unidiff.plugins.task import Example, Task

from .options import JsonFlag, ModelChoice, takes_options
from .output import print_json
from .progress import goes_on, run_beside
from .session import Session, check_checkpoint, open_session, quiet_transformers

_DATA, _TRAINING = "Data", "Training"
_RETAIN_EXAMPLES = 2_000  # of each task that is retained


@dataclass(frozen=True)
class TaskData:
    """Where the examples come from."""

    data: Annotated[
        str | None,
        typer.Option(
            help="JSONL, JSON, CSV, parquet, image folder, hub name, or what the task can read; "
            "the task's own by default.",
            rich_help_panel=_DATA,
        ),
    ] = None
    limit: Annotated[
        int | None, typer.Option(help="Training examples.", min=1, rich_help_panel=_DATA)
    ] = None
    held_out: Annotated[
        int,
        typer.Option(
            help="Examples to measure on, before and after.", min=0, rich_help_panel=_DATA
        ),
    ] = 200
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out pictures that do not decode.", rich_help_panel=_DATA
        ),
    ] = False

    def load(self, task: Task) -> tuple[Sequence[Example], Sequence[Example], int]:
        """(training examples, held-out ones, pictures left out).

        Raises:
            ValueError: if a column is missing, or there is nothing to train on.
        """
        from unidiff.data.examples import load_examples

        if self.data is None:
            held_out = task.dataset("test", self.held_out) if self.held_out else []
            return task.dataset("train", self.limit), held_out, 0
        num_bad = 0
        found = task.read(self.data, self.limit)
        if found is None:
            on_bad = "skip" if self.skip_bad else "raise"
            found = load_examples(self.data, task.columns, on_bad=on_bad, limit=self.limit)
            num_bad = len(found.bad)
        number = min(self.held_out, len(found) // 5)  # the last of the file, at most a fifth
        kept = len(found) - number
        return found[:kept], found[kept:], num_bad


@dataclass(frozen=True)
class Rates:
    """How the adapter is trained; what is left out is the task's own."""

    lora: Annotated[
        str,
        typer.Option(
            help="Such as r=8,alpha=16,dropout=0.1,layers=2-5,targets=q_proj+v_proj.",
            rich_help_panel=_TRAINING,
        ),
    ] = ""
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps.", min=1, rich_help_panel=_TRAINING)
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(help="Samples of a step.", min=1, rich_help_panel=_TRAINING)
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate.", rich_help_panel=_TRAINING)
    ] = None
    retain: Annotated[
        float,
        typer.Option(
            help="Weight of the term that holds other tasks to the base; 0: off.",
            min=0.0,
            rich_help_panel=_TRAINING,
        ),
    ] = 0.0
    retain_task: Annotated[
        list[str] | None,
        typer.Option(
            help="Task to hold to the base; may be repeated. By default all others that it knows.",
            rich_help_panel=_TRAINING,
        ),
    ] = None
    save_steps: Annotated[
        int, typer.Option(help="Steps between saves.", min=1, rich_help_panel=_TRAINING)
    ] = 50
    seed: Annotated[int, typer.Option(help="Of everything.", rich_help_panel=_TRAINING)] = 0
    quantized: Annotated[
        bool,
        typer.Option(
            "--quantized",
            help="Hold the base in 4 bits meanwhile (QLoRA).",
            rich_help_panel=_TRAINING,
        ),
    ] = False
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="Train in bfloat16; faster where the processor has it.",
            rich_help_panel=_TRAINING,
        ),
    ] = False

    def options(self, task: Task) -> Any:
        """`FinetuneOptions` of the task's defaults and what was given."""
        from unidiff.training.finetune import FinetuneOptions
        from unidiff.training.lora import lora_options

        own = task.lora
        batch_size = self.batch_size or own.batch_size
        return FinetuneOptions(
            steps=self.steps or own.steps,
            batch_size=batch_size,
            micro_batch=batch_size if batch_size % 16 else 16,
            learning_rate=self.learning_rate or own.learning_rate,
            seed=self.seed,
            save_steps=self.save_steps,
            bf16=self.bf16,
            lora=lora_options(self.lora, own),
        )


@takes_options
def finetune(
    task: Annotated[str, typer.Option(help="Task of an installed plugin.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to write; OUT.run resumes.")],
    model: ModelChoice,
    data: TaskData,
    rates: Rates,
    as_json: JsonFlag = False,
) -> None:
    """Teach a checkpoint a task with LoRA; Ctrl-C stops it, the same command goes on."""
    from unidiff.plugins.extending import add_modalities
    from unidiff.training.adapter_folder import check_replaceable, save_adapter
    from unidiff.training.finetune import TaskSource
    from unidiff.training.finetune import finetune as train
    from unidiff.training.lora import add_lora

    chosen = find_task(task)
    options = rates.options(chosen)
    check_replaceable(out)
    train_examples, held_out, num_bad = data.load(chosen)
    session, record = _opened(model, chosen, rates.quantized)
    new_ids = add_modalities(session.model, session.processor, chosen.modalities)
    options = replace(options, lora=replace(options.lora, new_ids=new_ids))
    run = run_beside(out)
    before = _measured(session, chosen, held_out, "base", rates.seed)
    start = time.perf_counter()
    add_lora(session.model, options.lora, seed=options.seed)
    source = TaskSource(chosen, session.processor, train_examples)
    retain = _retain(session, chosen, rates, options.steps)
    with goes_on():
        train(session.model, source, run, options, retain=retain)
    seconds = time.perf_counter() - start
    save_adapter(session.model, out, session.processor, record, decoding=chosen.decoding)
    after = _measured(session, chosen, held_out, "adapter", rates.seed)
    report = {
        "task": chosen.name,
        "adapter": str(out),
        "num_examples": len(train_examples),
        "num_left_out": num_bad,
        "training_seconds": round(seconds, 1),
        "settings": json.loads((run / "finetune.json").read_text()),
        "before": before,
        "after": after,
    }
    (out / "finetune.json").write_text(json.dumps(report, indent=2, default=str) + "\n")
    if as_json:
        print_json(report)
        return
    _print(report)


def merge(
    adapter: Annotated[Path, typer.Argument(help="Adapter folder.")],
    out: Annotated[Path, typer.Argument(help="Checkpoint folder to write.")],
) -> None:
    """Write a checkpoint that holds an adapter in its weights, in float32."""
    if out.exists():
        raise FileExistsError(f"{out} exists: choose another folder")
    import torch

    from unidiff.model.adapters import read_record
    from unidiff.model.modeling import UniDiffForBlockDiffusion
    from unidiff.tokens.processor import UniDiffProcessor

    read_record(adapter)
    quiet_transformers()
    # A half-precision sum of weight and update would say something else than the adapter did.
    model = UniDiffForBlockDiffusion.from_pretrained(adapter, dtype=torch.float32)
    model = model.merge_and_unload()
    partial = out.with_name(f"{out.name}.partial")
    model.save_pretrained(partial)
    UniDiffProcessor.from_pretrained(adapter).save_pretrained(partial)
    partial.rename(out)
    check_checkpoint(out)
    typer.echo(str(out))


def _opened(choice: ModelChoice, task: Task, quantized: bool) -> tuple[Session, Any]:
    """The checkpoint, in 4 bits where that is asked for, and the record of it."""
    from unidiff.training.adapter_folder import record_of

    session = open_session(choice)
    if not quantized:
        return session, record_of(session.model, task.name)
    from unidiff.training.quantized import load_quantized, quantized_record

    model = load_quantized(session.folder, str(session.model.device)).eval()
    session = replace(session, model=model)
    return session, quantized_record(model, session.folder, task.name)


def _retain(session: Session, task: Task, rates: Rates, steps: int) -> Any:
    """The retain term over the other tasks; None where it is off."""
    from unidiff.training.finetune import retain_stream
    from unidiff.training.retain import RetainTerm

    if not rates.retain:
        return None
    if rates.retain_task:
        others = [find_task(name) for name in rates.retain_task]
    else:
        installed = [one for plugin in all_plugins()[0].values() for one in plugin.tasks]
        others = [one for one in installed if one.is_in_base and one.name not in task.replaces]
    known = set(session.processor.layout.ranges)
    kept = {
        one: one.dataset("train", _RETAIN_EXAMPLES)
        for one in others
        if one.name != task.name and one.modalities <= known
    }
    if not kept:
        raise ValueError("--retain needs other tasks to hold: name one with --retain-task")
    batch = RetainTerm.batch_size
    stream = retain_stream(kept, session.processor, steps * batch, rates.seed)
    return RetainTerm(stream, weight=rates.retain)


def _measured(
    session: Session, task: Task, examples: Sequence[Example], name: str, seed: int
) -> dict[str, Any] | None:
    """What the task's metrics say of held-out examples; None without any."""
    from unidiff.evaluation.tasks import measure_task

    if not examples or not task.metrics():
        return None
    report = measure_task(
        task, session.model, session.processor, examples, name=name, seed=seed
    ).to_dict()
    report["options"] = {name: str(value) for name, value in report["options"].items()}
    return report


def _print(report: dict[str, Any]) -> None:
    """What changed, for people."""
    if report["num_left_out"]:
        typer.echo(f"{report['num_left_out']} pictures did not decode and were left out")
    for name in (report["after"] or {}).get("metrics", {}):
        before, after = (report[when]["metrics"][name]["value"] for when in ("before", "after"))
        typer.echo(f"{name}: {before:.3f} -> {after:.3f}")
    typer.echo(f"{report['adapter']} ({report['training_seconds']:.0f} s of training)")
