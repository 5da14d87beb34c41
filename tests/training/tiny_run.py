"""A tiny training run that tests start in other processes too.

    python tests/training/tiny_run.py '{"output_dir": "/tmp/run", "steps": 3}' result.json

Not a test: it writes what a test compares.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import TrainerCallback

sys.path.append(str(Path(__file__).resolve().parents[2]))

from unidiff.data.blocks import BlockOptions, TrainingRow, blocks_row
from unidiff.data.collator import BlockCollator
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.model import UniDiffConfig, UniDiffForBlockDiffusion
from unidiff.tokens.layout import TokenLayout, contiguous_layout
from unidiff.tokens.sequence import join, run_of
from unidiff.training.trainer import BlockDiffusionTrainer, BlockTrainingArguments

LAYOUT = contiguous_layout(
    {"text": 24, "image": 8},
    mask_token_id=1,
    pad_token_id=0,
    end_token_ids=(3,),
    image_grid=(2, 2),
)


class Sentences:
    """Sixteen sentences to remember: a number, then words of a length of its own."""

    name = "sentences"
    layout: TokenLayout = LAYOUT

    def __len__(self) -> int:
        return 16

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        words = np.random.default_rng(index).integers(4, 24, 4 + index % 5)
        prompt = run_of([2, 4 + index], "text")
        sequence = join([prompt, run_of([*words, 3], "text", wanted=True)])
        return blocks_row(sequence, self.layout, BlockOptions(max_block_length=6), rng)


class Pictures(Sentences):
    """Sixteen pictures of four codes."""

    name = "pictures"

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        codes = 24 + np.random.default_rng(100 + index).integers(0, 8, 4)
        sequence = join([run_of([2, 4 + index], "text"), run_of(codes, "image", wanted=True)])
        return blocks_row(sequence, self.layout, BlockOptions(), rng)


class KillAt(TrainerCallback):
    """Ends the process without warning in the middle of a run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def tiny_model(**fields: Any) -> UniDiffForBlockDiffusion:
    torch.manual_seed(0)
    settings = {
        "vocab_size": 32,
        "hidden_size": 32,
        "intermediate_size": 64,
        "head_dim": 16,
        "token_layout": LAYOUT.to_dict(),
        **fields,
    }
    return UniDiffForBlockDiffusion(UniDiffConfig(**settings))


def tiny_trainer(
    output_dir: Path | str,
    steps: int,
    batch_size: int = 4,
    accumulation: int = 2,
    items_per_step: int = 8,
    **fields: Any,
) -> BlockDiffusionTrainer:
    """Trainer of `steps` updates over `items_per_step` samples each, in float32."""
    sources = [Weighted(Sentences(), 3), Weighted(Pictures(), 1)]
    stream = MixtureStream(sources, length=steps * items_per_step, seed=7)
    settings = {
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 2,
        "average_decay": 0.9,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        **fields,
    }
    return BlockDiffusionTrainer(
        model=tiny_model(),
        args=BlockTrainingArguments(output_dir=str(output_dir), **settings),
        train_dataset=stream,
        data_collator=BlockCollator(),
    )


def losses_of(trainer: BlockDiffusionTrainer) -> list[float]:
    """Loss of each optimiser step, in nats per response token."""
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def norms_of(trainer: BlockDiffusionTrainer) -> list[float]:
    """Norm of the gradient of each optimiser step, before clipping."""
    return [line["grad_norm"] for line in trainer.state.log_history if "loss" in line]


def text_nats_of(trainer: BlockDiffusionTrainer) -> list[float]:
    """Logged text loss of each optimiser step, over all ranks."""
    return [line["text_nats"] for line in trainer.state.log_history if "loss" in line]


def main() -> None:
    """Run as the first argument's options say; the main process writes the second argument."""
    torch.set_num_threads(1)
    options = json.loads(sys.argv[1])
    kill_at = options.pop("kill_at", None)
    trainer = tiny_trainer(**options)
    if kill_at is not None:
        trainer.add_callback(KillAt(kill_at))
    trainer.train()
    if trainer.is_world_process_zero():
        result = {"losses": losses_of(trainer), "norms": norms_of(trainer)}
        result["text_nats"] = text_nats_of(trainer)
        result["world"] = trainer.args.world_size
        Path(sys.argv[2]).write_text(json.dumps(result))
    # What is left would only tear the process group down, in which gloo may abort or hang.
    PartialState().wait_for_everyone()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
