"""HF Trainer for block diffusion: our loss, sequential counter-based data, exponential average of weights.

Everything else (bf16, accumulation, checkpoints, resume, accelerate launch) is the Trainer's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .objective import BlockObjective
from .optimizer import OptimizerOptions, build_optimizer

AVERAGE_FILE = "average.safetensors"


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
            raise ValueError("remove_unused_columns would drop block_ids and sample_ids: leave False")


class WeightAverage(TrainerCallback):
    """Exponential average of the weights, saved and restored with each checkpoint."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Average that starts at the model's present weights."""
        self.decay = decay
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters()}

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the average when training resumes."""
        del control
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.global_step and (folder / AVERAGE_FILE).exists():
            self.weights = load_file(folder / AVERAGE_FILE)
        elif not state.global_step:
            self.weights = {n: p.detach().clone() for n, p in kwargs["model"].named_parameters()}

    @torch.no_grad()
    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the average towards the new weights; the decay ramps up over the first steps."""
        del args, control
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        for name, parameter in kwargs["model"].named_parameters():
            self.weights[name].lerp_(parameter.detach().to(self.weights[name].dtype), 1 - decay)

    def on_save(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the average beside the checkpoint."""
        del control, kwargs
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file(self.weights, folder / AVERAGE_FILE)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite a model's weights with the average."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.weights[name])


class BlockDiffusionTrainer(Trainer):
    """Trainer whose loss is a `BlockObjective` and whose data come in stream order."""

    def __init__(
        self,
        *args: Any,
        objective: BlockObjective | None = None,
        optimizer_options: OptimizerOptions | None = None,
        **kwargs: Any,
    ) -> None:
        """As HF's Trainer, plus the objective.

        Args:
            args: as HF's.
            objective: loss of a batch; None: the defaults.
            optimizer_options: None: the rates of the training arguments.
            kwargs: as HF's.
        """
        super().__init__(*args, **kwargs)
        self.objective = objective or BlockObjective()
        self.optimizer_options = optimizer_options
        self.model_accepts_loss_kwargs = True  # the loss below is normalised globally
        self._sums: dict[str, float] = {}
        self.average: WeightAverage | None = None
        if isinstance(self.args, BlockTrainingArguments) and self.args.average_decay > 0:
            self.average = WeightAverage(self.model, self.args.average_decay)
            self.add_callback(self.average)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Stream order: item i is training item i, whatever the batch size."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(dataset)

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
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over ranks
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        return (loss, parts) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """HF's log with nats per token of each modality since the last line."""
        for name in {key.rsplit("_", 1)[0] for key in self._sums}:
            if self._sums[f"{name}_count"] > 0:
                logs[f"{name}_nats"] = self._sums[f"{name}_sum"] / self._sums[f"{name}_count"]
        if "loss" in logs:
            self._sums.clear()
        super().log(logs, start_time)
