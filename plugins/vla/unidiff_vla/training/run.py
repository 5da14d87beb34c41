"""The run: image tokenizer, codes, then the policy; each part is kept and not made again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback

from unidiff.bundled import bundled_checkpoint
from unidiff.data.collator import BlockCollator
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.data.tasks import RowMaker
from unidiff.model.checkpoint import check_model_folder
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.prompts import layout_for_tokenizer
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.training.bundled import training_arguments
from unidiff.training.code_embeddings import initialise_code_embeddings
from unidiff.training.finetune import StepBar
from unidiff.training.run_folder import check_same_settings
from unidiff.training.trainer import (
    BlockDiffusionTrainer,
    newest_checkpoint,
)
from unidiff_vla.policy.fit import policy_training

from .codes import TOKENIZER_FOLDER, Note, add_recordings, coded_frames
from .objectives import policy_blocks, policy_model, policy_objective
from .recipe import PolicyRecipe
from .source import Recorded
from .start import begin_with

FACTS_FILE, RUN_FOLDER = "policy_run.json", "run"
_SPEED = ("compile_layers", "save_steps")  # may differ where a run goes on


def train_policy(
    data: Sequence[str | Path],
    output_dir: str | Path,
    recipe: PolicyRecipe,
    *,
    start: str | Path | None = None,
    adds: bool = False,
    note: Note = print,
) -> UniDiffForBlockDiffusion:
    """Train a policy on recorded data sets, or go on where an earlier call stopped.

    Args:
        data: folders of LeRobotDataset v3 with pictures, states and actions, all of the same
            features; where `output_dir` holds codes they are not read, unless `adds`.
        output_dir: everything the run makes; `assemble_policy` makes a checkpoint of it.
        recipe: sizes and rates.
        start: checkpoint whose text embeddings and layers the run begins with, where they fit;
            None: the bundled one.
        adds: put the codes of those data sets that `output_dir` lacks behind the codes it holds.
        note: told what is being done.

    Returns:
        The averaged model.

    Raises:
        ValueError: if a data set does not fit, the folder holds a run with another recipe, or as
            `add_recordings`.
        FileNotFoundError: if a data set is damaged.
    """
    output_dir, start = Path(output_dir), Path(start or bundled_checkpoint())
    check_model_folder(start)
    settings = {name: value for name, value in asdict(recipe).items() if name not in _SPEED}
    check_same_settings(output_dir / FACTS_FILE, settings, "another recipe")
    if adds:
        is_trained = newest_checkpoint(output_dir / RUN_FOLDER, needs_average=True) is not None
        add_recordings(data, output_dir, is_trained=is_trained, note=note)
    frames, states, actions = coded_frames(data, output_dir, recipe, note)
    tokenizer = AutoTokenizer.from_pretrained(bundled_checkpoint())
    config = policy_config(tokenizer, recipe, frames.picture_grid, states, actions)
    model = _new_model(config, recipe, start, output_dir / TOKENIZER_FOLDER, note)
    encoder = SequenceEncoder(tokenizer, config.layout)
    maker = RowMaker(encoder, policy_blocks(recipe.objective))
    source = Recorded(
        maker,
        frames,
        still_share=recipe.still_share,
        future_share=recipe.future_share,
        waypoints=tuple(recipe.waypoints),
        num_turns=recipe.num_turns,
        approach_share=recipe.approach_share,
    )
    stream = MixtureStream([Weighted(source, 1)], recipe.steps * recipe.batch_size, recipe.seed)
    arguments = training_arguments(
        output_dir / RUN_FOLDER, recipe, recipe.batch_size, recipe.micro_batch
    )
    arguments.disable_tqdm = True  # ours goes to stderr
    trainer = BlockDiffusionTrainer(
        model=model,
        args=arguments,
        train_dataset=stream,
        data_collator=BlockCollator(),
        objective=policy_objective(recipe),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepBar())
    trainer.train(
        resume_from_checkpoint=newest_checkpoint(output_dir / RUN_FOLDER, needs_average=True)
    )
    assert trainer.average is not None
    trainer.average.copy_to(model)
    return model.eval()


def _new_model(
    config: UniDiffConfig, recipe: PolicyRecipe, start: Path, image_tokenizer: Path, note: Note
) -> UniDiffForBlockDiffusion:
    """Weights to train: fresh ones, and what fits of a checkpoint."""
    torch.manual_seed(recipe.seed)
    model = policy_model(recipe.objective, config)
    initialise_code_embeddings(model, recipe.levels, recipe.seed)
    note(begin_with(model, start, image_tokenizer))
    model.set_attn_implementation("eager")
    if recipe.compile_layers:
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    return model


def policy_config(
    tokenizer: PreTrainedTokenizerBase,
    recipe: PolicyRecipe,
    picture_grid: tuple[int, int],
    states: BinTokenizer,
    actions: BinTokenizer,
) -> UniDiffConfig:
    """Configuration of the policy; the vocabulary is padded to a multiple of 64."""
    sizes = {
        "image": int(np.prod(recipe.levels)),
        "action": actions.num_bins,
        "state": states.num_bins,
    }
    layout = layout_for_tokenizer(tokenizer, sizes, picture_grid, actions.grid)
    heads = recipe.hidden_size // 64
    return UniDiffConfig(
        vocab_size=-(-layout.num_ids // 64) * 64,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=64,
        canvas_length=16,
        max_position_embeddings=1024,
        token_layout=layout.to_dict(),
        mask_token_id=layout.mask_token_id,
        pad_token_id=layout.pad_token_id,
        bos_token_id=2,
        eos_token_id=layout.end_token_ids[0],
        trained_on_visible=recipe.objective == "masked" and recipe.wrong_share > 0,
        policy_training=policy_training(recipe.objective, recipe.future_share),
    )
