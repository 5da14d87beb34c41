"""HF Trainer for block diffusion: our loss, data in stream order, exponential average of weights.

Everything else (bf16, accumulation, checkpoints, resume, accelerate launch) is the Trainer's own.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .objective import BlockObjective
from .optimizer import OptimizerOptions, build_optimizer

AVERAGE_FILE = "average.safetensors"
STATE_FILE = "trainer_state.json"
# (model, possibly wrapped; the model inside; optimiser step) -> what is added to the step's loss.
StepTerm = Callable[[nn.Module, nn.Module, int], Tensor]
# (model, possibly wrapped; batch; configuration; labels in the global batch) -> loss, its parts.
Objective = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@dataclass
class BlockTrainingArguments(TrainingArguments):
    """HF's arguments with the defaults that block diffusion needs.

    Attributes:
        average_decay: decay per optimiser step of the exponential average of weights; 0 keeps none.
        muon_momentum: momentum of Muon.
    """

    average_decay: float = field(default=0.0, metadata={"help": "decay of the weight average"})
    muon_momentum: float = field(default=0.95, metadata={"help": "momentum of Muon"})
    remove_unused_columns: bool = field(default=False)
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    average_tokens_across_devices: bool = field(default=True)

    def __post_init__(self) -> None:
        """Check the decay and that the batch's own columns are kept."""
        super().__post_init__()
        if not 0.0 <= self.average_decay < 1.0:
            raise ValueError(f"average_decay must lie in [0, 1), got {self.average_decay}")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns drops block_ids and sample_ids: leave False")


class WeightAverage(TrainerCallback):
    """Exponential average of the weights, saved and restored with each checkpoint."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Average that starts at the model's present weights."""
        self.decay = decay
        self.resume_folder: Path | None = None
        self.weights = _copies(model)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the average when training resumes; raises FileNotFoundError without its file."""
        del control
        self.weights = _copies(kwargs["model"])
        if not state.global_step:
            return
        folder = self.resume_folder or checkpoint_folder(args.output_dir, state.global_step)
        if not (folder / AVERAGE_FILE).exists():
            raise FileNotFoundError(
                f"{folder} has no {AVERAGE_FILE}: the run was killed while saving, or kept no "
                "average. Resume from an earlier checkpoint, or with average_decay=0"
            )
        for name, weight in load_file(folder / AVERAGE_FILE).items():
            self.weights[name].copy_(weight)

    @torch.no_grad()
    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the average towards the new weights; the decay ramps up over the first steps."""
        del args, control
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        for name, parameter in _trained(kwargs["model"]):
            self.weights[name].lerp_(parameter.detach().to(self.weights[name].dtype), 1 - decay)

    def on_save(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the average into the checkpoint, whole or not at all."""
        del control, kwargs
        if state.is_world_process_zero:
            folder = checkpoint_folder(args.output_dir, state.global_step)
            save_file(self.weights, folder / f"{AVERAGE_FILE}.partial")
            os.replace(folder / f"{AVERAGE_FILE}.partial", folder / AVERAGE_FILE)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite a model's weights with the average."""
        for name, parameter in _trained(model):
            parameter.copy_(self.weights[name])


def _copies(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a model's trained parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in _trained(model)}


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that are trained, by name; of a model with an adapter the adapter's."""
    return [(name, one) for name, one in model.named_parameters() if one.requires_grad]


def checkpoint_folder(output_dir: str | Path, step: int) -> Path:
    """Folder of the checkpoint after `step` optimiser steps."""
    return Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def newest_checkpoint(output_dir: str | Path, needs_average: bool = False) -> Path | None:
    """Newest checkpoint that was written to its end; None when there is none.

    A run killed while saving leaves a folder without the files written last.

    Args:
        output_dir: folder of the checkpoints; may be missing.
        needs_average: the run keeps a `WeightAverage`, which is written last of all.
    """
    last_file = AVERAGE_FILE if needs_average else STATE_FILE
    found = {}
    for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdigit() and (folder / STATE_FILE).exists() and (folder / last_file).exists():
            found[int(step)] = folder
    return found[max(found)] if found else None


class BlockDiffusionTrainer(Trainer):
    """Trainer whose loss is a `BlockObjective`, or one like it, and whose data come in order."""

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        *args: Any,
        objective: Objective | None = None,
        optimizer_options: OptimizerOptions | None = None,
        term: StepTerm | None = None,
        **kwargs: Any,
    ) -> None:
        """As HF's Trainer, plus the objective.

        Args:
            args: as HF's.
            objective: loss of a batch, as `BlockObjective` is called; None: one of its defaults.
            optimizer_options: None: the rates of the training arguments.
            term: draws rows of its own and joins the first micro-batch of each optimiser step.
            kwargs: as HF's.
        """
        super().__init__(*args, **kwargs)
        self.objective: Objective = objective or BlockObjective()
        self.optimizer_options = optimizer_options
        self.model_accepts_loss_kwargs = True  # the loss below is normalised globally
        self.term = term
        self._termed_step = -1
        self._sums: dict[str, float] = {}
        self.average: WeightAverage | None = None
        if isinstance(self.args, BlockTrainingArguments) and self.args.average_decay > 0:
            self.average = WeightAverage(self.model, self.args.average_decay)
            self.add_callback(self.average)

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, **kwargs: Any) -> Any:
        """As HF's; True resumes from the newest complete checkpoint.

        Raises:
            ValueError: for True, if `output_dir` holds no complete checkpoint.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = newest_checkpoint(
                self.args.output_dir, needs_average=self.average is not None
            )
            if resume_from_checkpoint is None:
                raise ValueError(f"no complete checkpoint in {self.args.output_dir} to resume from")
        folder = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if self.average is not None:
            self.average.resume_folder = folder
        return super().train(resume_from_checkpoint=str(folder) if folder else None, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Stream order: item i is training item i, whatever the batch size."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        assert dataset is not None
        return SequentialSampler(dataset)  # type: ignore[arg-type]  # HF's datasets have a length

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon and AdamW at the arguments' rates."""
        if self.optimizer is None:
            options = self.optimizer_options or OptimizerOptions(
                learning_rate=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                momentum=getattr(self.args, "muon_momentum", 0.95),
            )
            self.optimizer = build_optimizer(model or self.model, options)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one micro-batch in nats per response token of the whole global batch."""
        loss, parts = self.objective(model, inputs, self.model.config, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over ranks
        if model.training:
            for name, value in parts.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value)
            loss = loss + self._step_term(model)
        return (loss, parts) if return_outputs else loss

    def _step_term(self, model: nn.Module) -> Tensor | float:
        """The term's part of this micro-batch's loss."""
        if self.term is None or self.state.global_step == self._termed_step:
            return 0.0
        self._termed_step = self.state.global_step
        value = self.term(model, self.model, self._termed_step)
        self._sums["term_sum"] = self._sums.get("term_sum", 0.0) + float(value.detach())
        self._sums["term_count"] = self._sums.get("term_count", 0.0) + 1.0
        return value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """HF's log with nats per token of each modality, over all ranks, since the last line."""
        if "loss" in logs:
            names = sorted(self._sums)  # the same on every rank
            values = torch.tensor([self._sums[name] for name in names], device=self.args.device)
            totals = self.accelerator.reduce(values, "sum").tolist()
            sums = dict(zip(names, totals, strict=True))
            for name in sorted({key.rsplit("_", 1)[0] for key in sums}):
                if sums[f"{name}_count"] > 0:
                    logs[f"{name}_nats"] = sums[f"{name}_sum"] / sums[f"{name}_count"]
            self._sums.clear()
        super().log(logs, start_time)
