"""Fine-tuning a task with LoRA: rows of its examples, the trainer, what it did before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback, TrainerState

from unidiff.data.blocks import TrainingRow
from unidiff.data.collator import BlockCollator
from unidiff.data.stream import MixtureStream, Source, Weighted
from unidiff.plugins.task import Example, Task

from .adapter_folder import read_adapter_weights, write_adapter_weights
from .lora import LoRAOptions
from .objective import BlockObjective
from .precision import native_bfloat16
from .retain import RetainTerm
from .run_folder import check_same_settings
from .trainer import BlockDiffusionTrainer, BlockTrainingArguments, newest_checkpoint

SETTINGS_FILE = "finetune.json"
_WARMUP, _DECAY = 0.05, 0.3  # shares of the steps


@dataclass(frozen=True)
class FinetuneOptions:
    """Sizes and rates of a fine-tune.

    Attributes:
        steps: optimiser steps.
        batch_size: samples of one.
        micro_batch: samples of one forward; it divides the batch.
        learning_rate: peak rate of AdamW.
        seed: decides weights, order and noise.
        save_steps: steps between checkpoints.
        bf16: autocast to bfloat16 where the processor knows it.
        lora: what is adapted.
    """

    steps: int = 200
    batch_size: int = 32
    micro_batch: int = 16
    learning_rate: float = 2e-3
    seed: int = 0
    save_steps: int = 50
    bf16: bool = False
    lora: LoRAOptions = field(default_factory=LoRAOptions)

    def __post_init__(self) -> None:
        """Check that the sizes fit together."""
        if min(self.steps, self.batch_size, self.save_steps) < 1 or self.learning_rate <= 0:
            raise ValueError(
                f"a fine-tune needs steps, batch_size, save_steps >= 1 and learning_rate > 0, got "
                f"{self.steps}, {self.batch_size}, {self.save_steps} and {self.learning_rate}"
            )
        if self.batch_size % min(self.micro_batch, self.batch_size):
            raise ValueError(
                f"micro_batch must divide batch_size, got {self.micro_batch} and {self.batch_size}"
            )


@dataclass(frozen=True)
class TaskSource:
    """A task's examples as a training source.

    Attributes:
        task: makes the rows.
        processor: of the checkpoint.
        examples: with their answers.
    """

    task: Task
    processor: Any
    examples: Sequence[Example]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    def __len__(self) -> int:
        """Examples."""
        return len(self.examples)

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Training row of an example."""
        return self.task.training_row(self.processor, self.examples[index], rng)


class AdapterTrainer(BlockDiffusionTrainer):
    """Trains an adapter, and resumes with the adapter alone."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The adapter alone; transformers refuses rows that embedding and head share."""
        del state_dict
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_adapter_weights(self.model, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The adapter of a checkpoint; transformers looks for a whole model's weights."""
        from peft import set_peft_model_state_dict

        weights = read_adapter_weights(resume_from_checkpoint)
        set_peft_model_state_dict(model or self.model, weights, adapter_name="default")


class StepBar(TrainerCallback):
    """Steps and loss on stderr."""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Show the steps done so far."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="steps")

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Show the latest loss."""
        if state.log_history and "loss" in state.log_history[-1]:
            self.bar.set_postfix(loss=f"{state.log_history[-1]['loss']:.3f}")

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def retain_stream(
    tasks: Mapping[Task, Sequence[Example]], processor: Any, length: int, seed: int
) -> MixtureStream:
    """Rows of tasks that shall not be forgotten, each task equally often.

    Args:
        tasks: task -> examples with answers.
        processor: of the checkpoint.
        length: items.
        seed: of order and choices.
    """
    sources = [TaskSource(task, processor, examples) for task, examples in tasks.items()]
    return MixtureStream([Weighted(source, 1) for source in sources], length, seed)


def finetune(
    model: Any,
    source: Source,
    output_dir: Path,
    options: FinetuneOptions,
    *,
    retain: RetainTerm | None = None,
    objective: BlockObjective | None = None,
) -> Any:
    """Train the adapter on a model, or go on from the newest checkpoint; returns the model.

    Args:
        model: with a fresh adapter (`add_lora`), changed in place.
        source: training rows.
        output_dir: checkpoints; a run with other settings is refused.
        options: sizes and rates.
        retain: forgetting control.
        objective: loss of the rows; None: the defaults.

    Raises:
        ValueError: if `output_dir` holds a run with other settings.
    """
    check_same_run(output_dir, source, options, retain)
    stream = MixtureStream([Weighted(source, 1)], options.steps * options.batch_size, options.seed)
    trainer = AdapterTrainer(
        model=model,
        args=_arguments(output_dir, options),
        train_dataset=stream,
        data_collator=BlockCollator(),
        objective=objective,
        term=retain if retain is not None and retain.weight > 0 else None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepBar())
    trainer.train(resume_from_checkpoint=newest_checkpoint(output_dir))
    return model.eval()


def check_same_run(
    output_dir: Path, source: Source, options: FinetuneOptions, retain: RetainTerm | None
) -> None:
    """Write a run's settings into its folder; raise ValueError if they differ from those there."""
    settings = {
        "task": source.name,
        "num_examples": len(source),
        **asdict(options),
        "retain": None if retain is None else [retain.weight, retain.batch_size, retain.weighting],
        "retain_tasks": [] if retain is None else retained_names(retain),
    }
    check_same_settings(Path(output_dir) / SETTINGS_FILE, settings)


def retained_names(retain: RetainTerm) -> list[str]:
    """Names of the tasks that a retain term holds to the base."""
    return sorted(weighted.source.name for weighted in retain.stream.sources)


def _arguments(output_dir: Path, options: FinetuneOptions) -> BlockTrainingArguments:
    """Trainer arguments of a fine-tune."""
    micro = min(options.micro_batch, options.batch_size)
    return BlockTrainingArguments(
        output_dir=str(output_dir),
        max_steps=options.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=options.batch_size // micro,
        learning_rate=options.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_decay_steps": max(1, int(_DECAY * options.steps)),
            "min_lr_ratio": 0.02,
        },
        warmup_steps=max(1, int(_WARMUP * options.steps)),
        max_grad_norm=1.0,
        bf16=native_bfloat16(options.bf16),
        logging_steps=10,
        save_steps=options.save_steps,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,  # ours goes to stderr: stdout is the report
        seed=options.seed,
        use_cpu=not torch.cuda.is_available(),
    )
