"""The `full`-attention variant of the bundled recipe, `unidiff train --recipe full`: text only.

Every token sees every other, as in LLaDA (arXiv 2502.09992), so nothing is exact to cache; the
approximate `cache_reuse` kinds are measured on it. It starts from the bundled checkpoint, whose
blocks already read in both directions, and learns windows with a visible prompt of any length.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from unidiff.bundled import bundled_checkpoint
from unidiff.data.blocks import TrainingRow, one_block_row
from unidiff.data.collator import BlockCollator
from unidiff.data.prepared import load_arrays
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.data.tasks import LibraryText, RowMaker
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import TokenLayout
from unidiff.tokens.sequence import SequenceEncoder, join, run_of

from .bundled import training_arguments
from .objective import BlockObjective
from .recipes import BundledRecipe
from .trainer import BlockDiffusionTrainer, newest_checkpoint

CANVAS_LENGTH = 32
WINDOWS = {640: 4, 256: 8}  # tokens of a window: how many of each optimiser step
MICRO_BATCH = 4
PROB_BARE = 0.2  # windows behind the first token alone, masked as a whole
MIN_WANTED = 16  # tokens that a prompt leaves to be denoised


@dataclass(frozen=True)
class FullRecipe(BundledRecipe):
    """Sizes and rates, as those of the bundled recipe.

    Attributes:
        adapts: start from the bundled checkpoint's weights and sizes; False: from fresh weights of
            the sizes given.
    """

    steps: int = 350
    decay_steps: int = 150
    warmup_steps: int = 20
    learning_rate: float = 2e-3
    average_decay: float = 0.99
    save_steps: int = 25
    adapts: bool = True


@dataclass(frozen=True)
class WholeWindow(LibraryText):
    """A stretch of library text as one canvas, its beginning known."""

    prob_infill: float = 0.0
    name: str = "whole_window"

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one stretch; the known part is the first token, or of uniform length."""
        ids = self.arrays["ids"].astype(np.int64)[self._window(index, rng)]
        known = 0
        if len(ids) > MIN_WANTED and rng.random() >= PROB_BARE:
            known = int(rng.integers(1, len(ids) - MIN_WANTED + 1))
        begin = self.maker.encoder.special("<|bos|>")
        prompt = run_of([begin, *ids[:known]], "text")
        sequence = join([prompt, run_of(ids[known:], "text", wanted=True)])
        return one_block_row(sequence, self.maker.encoder.layout, first=0)


def full_config(recipe: FullRecipe) -> UniDiffConfig:
    """The bundled checkpoint's configuration with full attention, and the recipe's sizes if new."""
    config: UniDiffConfig = UniDiffConfig.from_pretrained(bundled_checkpoint())
    config.attention_pattern = "full"
    config.canvas_length = CANVAS_LENGTH
    if not recipe.adapts:
        config.hidden_size = recipe.hidden_size
        config.intermediate_size = recipe.intermediate_size
        config.num_hidden_layers = recipe.num_layers
        config.num_attention_heads = config.num_key_value_heads = recipe.hidden_size // 64
    return config


def full_model(recipe: FullRecipe) -> UniDiffForBlockDiffusion:
    """The model at its first step, in float32."""
    torch.manual_seed(recipe.seed)
    config = full_config(recipe)
    if not recipe.adapts:
        return UniDiffForBlockDiffusion(config)
    model: UniDiffForBlockDiffusion = UniDiffForBlockDiffusion.from_pretrained(
        bundled_checkpoint(), config=config, dtype=torch.float32
    )
    return model


def full_stream(data_dir: Path, encoder: SequenceEncoder, length: int, seed: int) -> MixtureStream:
    """The training stream over the prepared text: long windows, then short ones, each step."""
    arrays = load_arrays(data_dir, "text_train")
    maker = RowMaker(encoder)
    sources = [
        Weighted(WholeWindow(maker, arrays, length=window - 1), number)
        for window, number in WINDOWS.items()
    ]
    return MixtureStream(sources, length, seed)


def full_objective(seed: int) -> BlockObjective:
    """Loss of the recipe: the ELBO of each window, without an autoregressive reading."""
    return BlockObjective(ar_weight=0.0, seed=seed)


def train_full(
    data_dir: Path, output_dir: Path, tokenizer: PreTrainedTokenizerBase, recipe: FullRecipe
) -> UniDiffForBlockDiffusion:
    """Train, or resume from the newest checkpoint in `output_dir`; returns the averaged model.

    Args:
        data_dir: prepared parts (`unidiff prepare`); only the text is read.
        output_dir: checkpoints and their log.
        tokenizer: text tokenizer of the bundled checkpoint.
        recipe: sizes and rates.

    Raises:
        ValueError: if the tokenizer is not the one of the bundled checkpoint.
    """
    model = full_model(recipe)
    layout = model.config.layout
    _check_tokenizer(tokenizer, layout)
    model.set_attn_implementation("eager")
    cycle = sum(WINDOWS.values())
    encoder = SequenceEncoder(tokenizer, layout)
    if recipe.compile_layers:
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    trainer = BlockDiffusionTrainer(
        model=model,
        args=training_arguments(output_dir, recipe, cycle, MICRO_BATCH),
        train_dataset=full_stream(data_dir, encoder, recipe.steps * cycle, recipe.seed),
        data_collator=BlockCollator(),
        objective=full_objective(recipe.seed),
    )
    has_average = trainer.average is not None
    trainer.train(resume_from_checkpoint=newest_checkpoint(output_dir, has_average))
    if trainer.average is not None:
        trainer.average.copy_to(model)
    return model


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, layout: TokenLayout) -> None:
    """Raise ValueError if the tokenizer's ids are not those of the layout's text."""
    text = layout.range_of("text")
    if len(tokenizer) != text.stop - text.start:
        raise ValueError(
            f"the full recipe starts from the bundled checkpoint, whose text range has "
            f"{text.stop - text.start} ids, but the tokenizer has {len(tokenizer)}: leave "
            "--text-tokenizer out"
        )
