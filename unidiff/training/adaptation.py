"""AR -> block diffusion (`unidiff adapt`): an autoregressive checkpoint learns to fill blocks.

The weights stay what they are; attention, what a row predicts and the noise are changed by a recipe
(`adaptation_recipes.py`), and the model is trained on until it has learnt to live with that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from unidiff.data.collator import BlockCollator
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.whole_folder import whole_folder

from .adaptation_recipes import AdaptationRates, AdaptationRecipe
from .assemble import RunState, write_history
from .bundled import training_arguments
from .finetune import AdapterTrainer, StepBar
from .lora import add_lora
from .run_folder import check_same_settings
from .trainer import BlockDiffusionTrainer, Objective, newest_checkpoint

SETTINGS_FILE = "adapt.json"


def adapted_model(source: str | Path, recipe: AdaptationRecipe) -> UniDiffForBlockDiffusion:
    """The model of an autoregressive checkpoint as the recipe reads it, untrained, in float32.

    The mask's row of the embedding, which the source never learnt, is the mean of the others.

    Args:
        source: folder of a Llama, Qwen2 or Qwen3 checkpoint, or of one that was converted.
        recipe: what it becomes.

    Raises:
        FileNotFoundError, ValueError: as `from_pretrained`, or if it is not autoregressive.
    """
    model: UniDiffForBlockDiffusion = UniDiffForBlockDiffusion.from_pretrained(
        source, dtype=torch.float32
    )
    config = model.config
    if (config.attention_pattern, config.logits_shift) != ("causal_context", 1):
        raise ValueError(
            f"{source} is not autoregressive: it has attention_pattern="
            f"{config.attention_pattern!r} and logits_shift={config.logits_shift}. Adapt a Llama, "
            "Qwen2 or Qwen3 checkpoint"
        )
    config.attention_pattern = recipe.attention_pattern
    config.logits_shift = recipe.logits_shift
    config.canvas_length = recipe.block_length
    with torch.no_grad():
        table, mask = model.model.embed_tokens.weight, config.mask_token_id
        table[mask] = (table.sum(0) - table[mask]) / (len(table) - 1)
    return model


def train_model(
    model: UniDiffForBlockDiffusion,
    sources: Sequence[Weighted],
    run_dir: Path,
    objective: Objective,
    rates: AdaptationRates,
    settings: Mapping[str, Any],
    packed_length: int | None = None,
) -> RunState:
    """Train, or go on from the newest checkpoint in `run_dir`.

    Args:
        model: changed in place. With `rates.lora` its own weights stay, and the adapter is merged
            into them at the end.
        sources: training rows, each with its samples of a step.
        run_dir: checkpoints; a run with other settings is refused.
        objective: the loss, such as a recipe's.
        rates: sizes.
        settings: what else makes the run what it is, for JSON.
        packed_length: samples share rows of at most this many tokens; None: a row each.

    Raises:
        ValueError: if `run_dir` holds a run with other settings, or a step's samples do not divide
            into micro-batches.
    """
    cycle = sum(one.per_cycle for one in sources)
    data = [[one.source.name, len(one.source), one.per_cycle] for one in sources]
    said = {**settings, "data": data, "rates": asdict(rates), "packed_length": packed_length}
    check_same_settings(run_dir / SETTINGS_FILE, said)
    trainer_class: type[BlockDiffusionTrainer] = BlockDiffusionTrainer
    if rates.lora is not None:
        trainer_class = AdapterTrainer
        new_ids = (*rates.lora.new_ids, model.config.mask_token_id)
        add_lora(model, replace(rates.lora, new_ids=new_ids), seed=rates.seed)
    arguments = training_arguments(run_dir, rates, cycle, rates.micro_batch)
    arguments.disable_tqdm = True  # ours goes to stderr: stdout is the report
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=MixtureStream(sources, rates.steps * cycle, rates.seed),
        data_collator=BlockCollator(packed_length),
        objective=objective,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepBar())
    has_average = trainer.average is not None
    trainer.train(resume_from_checkpoint=newest_checkpoint(run_dir, has_average))
    if trainer.average is not None:
        trainer.average.copy_to(model)
    if rates.lora is not None:
        model.merge_and_unload()
    history = list(trainer.state.log_history)
    return RunState(model.eval(), has_average, trainer.state.global_step, rates.steps, history)


def write_adapted(
    run: RunState,
    processor: UniDiffProcessor,
    decoding: Mapping[str, Any],
    target: str | Path,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Checkpoint folder of a finished run: weights, processor, decoding, log and curves.

    Args:
        run: of `train_model`.
        processor: of the source.
        decoding: keywords of `generate()` that become the folder's defaults.
        target: there whole or not at all; replaced if it is there.
        dtype: of the stored weights.
    """
    target = Path(target)
    run.model.generation_config = UniDiffGenerationConfig.with_ids_of(run.model.config, **decoding)
    with whole_folder(target) as partial:
        run.model.to(dtype).save_pretrained(partial)
        processor.save_pretrained(partial)
        write_history(partial, run)
    return target
