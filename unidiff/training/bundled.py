"""Training the bundled checkpoint, `unidiff train --recipe bundled`: a recipe's data and loss.

Everything is decided by the seed and the step, so a run can be interrupted and resumed at any
checkpoint; the rate is warmed up, held, and decayed over the last steps, so that a longer run
continues a shorter one.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from unidiff.data.blocks import BlockOptions
from unidiff.data.collator import BlockCollator
from unidiff.data.prepared import Arrays, load_arrays
from unidiff.data.stream import MixtureStream, Source, Weighted
from unidiff.data.tasks import (
    Demonstrated,
    GarmentDrawing,
    GarmentTalk,
    LibraryText,
    PictureInfill,
    RowMaker,
    SceneDrawing,
    SceneTalk,
)
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.layout import TokenLayout
from unidiff.tokens.prompts import layout_for_tokenizer
from unidiff.tokens.sequence import SequenceEncoder

from .carried import load_carried_weights, note_start, read_carried, start_of
from .code_embeddings import initialise_code_embeddings
from .guidance_term import GuidanceTerm
from .objective import BlockObjective, ModalityLoss
from .precision import native_bfloat16
from .recipes import BundledRecipe, Rates
from .trainer import BlockDiffusionTrainer, BlockTrainingArguments, newest_checkpoint

MICRO_BATCH = 16
IMAGE_COEFFICIENT = 0.3  # 64 codes of an image weigh as much as some 20 words
# A few visible actions of a chunk give the others away; only a chunk that is masked whole makes
# the model look at the frame. Measured from one checkpoint, 340 steps of 32 chunks: 4.67 nats per
# action of a whole masked chunk with share 1, 4.98 with share 0.
ACTION_FULL_SHARE = 0.75
NUM_BINS = 256


def bundled_layout(tokenizer: PreTrainedTokenizerBase, num_image_codes: int) -> TokenLayout:
    """Token layout of the bundled checkpoint: text, image codes, action bins, state bins."""
    sizes = {"image": num_image_codes, "action": NUM_BINS, "state": NUM_BINS}
    return layout_for_tokenizer(tokenizer, sizes)


def bundled_config(layout: TokenLayout, recipe: BundledRecipe) -> UniDiffConfig:
    """Model configuration of the recipe; the vocabulary is padded to a multiple of 64."""
    return UniDiffConfig(
        vocab_size=-(-layout.num_ids // 64) * 64,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.hidden_size // 64,
        num_key_value_heads=recipe.hidden_size // 64,
        head_dim=64,
        canvas_length=16,
        max_position_embeddings=1024,
        token_layout=layout.to_dict(),
        mask_token_id=layout.mask_token_id,
        pad_token_id=layout.pad_token_id,
        bos_token_id=2,
        eos_token_id=layout.end_token_ids[0],
    )


def bins_of(demonstrations: Arrays) -> tuple[BinTokenizer, BinTokenizer]:
    """(state bins, action bins) fitted to the demonstrations."""
    states = BinTokenizer.fit(demonstrations["states"], num_bins=NUM_BINS)
    horizon = demonstrations["chunks"].shape[1]
    return states, BinTokenizer.fit(demonstrations["chunks"], num_bins=NUM_BINS, horizon=horizon)


def bundled_stream(
    data_dir: Path,
    encoder: SequenceEncoder,
    recipe: BundledRecipe,
    length: int,
    first: int = 0,
) -> MixtureStream:
    """The training stream over the prepared parts in `data_dir`, from item `first` on."""
    maker = RowMaker(encoder, BlockOptions(max_block_length=32))
    garments = load_arrays(data_dir, "garments_train")
    scenes = load_arrays(data_dir, "scenes_train")
    demonstrations = load_arrays(data_dir, "demonstrations_train")
    states, actions = bins_of(demonstrations)
    sources: list[Source] = [
        GarmentTalk(maker, garments),
        GarmentDrawing(maker, garments),
        PictureInfill(maker, garments, scenes),
        SceneDrawing(maker, scenes),
        Demonstrated(maker, demonstrations, states, actions),
        LibraryText(
            maker,
            load_arrays(data_dir, "text_train"),
            prob_infill=recipe.infill_share,
            line_share=recipe.line_share,
            short_share=recipe.short_share,
        ),
        SceneTalk(maker, scenes),
    ]
    weighted = [Weighted(source, recipe.mixture[source.name]) for source in sources]
    return MixtureStream(weighted, length, recipe.seed, first)


def guidance_of_scenes(
    model: UniDiffForBlockDiffusion,
    data_dir: Path,
    encoder: SequenceEncoder,
    recipe: BundledRecipe,
    steps: int,
    first_step: int,
) -> GuidanceTerm:
    """The term by which scenes are drawn as a copy of the model draws them under guidance."""
    maker = RowMaker(encoder)
    source = SceneDrawing(maker, load_arrays(data_dir, "scenes_train"))
    rows = recipe.guided_rows
    return GuidanceTerm(
        teacher=copy.deepcopy(model),
        stream=MixtureStream(
            [Weighted(source, rows)], steps * rows, recipe.seed + 1, first_step * rows
        ),
        maker=maker,
        scale=recipe.guidance_scale,
        temperature=recipe.guided_temperature,
        weight=recipe.guided_weight,
        batch_size=rows,
    )


def bundled_objective(seed: int, text_full_share: float = 0.0) -> BlockObjective:
    """Loss of the recipe: ELBO for text, cosine and unweighted for images and actions."""
    return BlockObjective(
        text=ModalityLoss(full_share=text_full_share),
        image=ModalityLoss("cosine", elbo_weights=False, coefficient=IMAGE_COEFFICIENT),
        action=ModalityLoss("cosine", elbo_weights=False, full_share=ACTION_FULL_SHARE),
        seed=seed,
    )


def train_bundled(
    data_dir: Path,
    output_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    levels: Sequence[int],
    recipe: BundledRecipe,
    carried: Path | None = None,
) -> UniDiffForBlockDiffusion:
    """Train, or resume from the newest checkpoint in `output_dir`; returns the averaged model.

    Args:
        data_dir: prepared parts (`unidiff prepare`).
        output_dir: checkpoints and their log; `assemble_checkpoint` makes the result of them.
        tokenizer: text tokenizer.
        levels: FSQ levels of the image tokenizer.
        recipe: sizes and rates.
        carried: folder of a carried run (`training/carried.py`) to go on from; its steps count
            towards `recipe.steps`.
    """
    start = read_carried(carried) if carried is not None else start_of(output_dir)
    steps = recipe.steps - start.steps
    layout = bundled_layout(tokenizer, math.prod(levels))
    torch.manual_seed(recipe.seed)
    model = UniDiffForBlockDiffusion(bundled_config(layout, recipe))
    initialise_code_embeddings(model, levels, recipe.seed)
    if carried is not None:
        load_carried_weights(model, carried)
    model.set_attn_implementation("eager")
    cycle = sum(recipe.mixture.values())
    encoder = SequenceEncoder(tokenizer, layout)
    stream = bundled_stream(data_dir, encoder, recipe, steps * cycle, start.steps * cycle)
    term = None
    if recipe.guided_rows:
        if carried is None:
            raise ValueError("guidance is learnt from a finished run: give --carried")
        term = guidance_of_scenes(model, data_dir, encoder, recipe, steps, start.steps)
    if recipe.compile_layers:
        for read in [model] if term is None else [model, term.teacher]:
            for layer in read.model.layers:
                layer.compile(dynamic=True)
    trainer = BlockDiffusionTrainer(
        model=model,
        args=training_arguments(output_dir, replace(recipe, steps=steps), cycle, MICRO_BATCH),
        train_dataset=stream,
        data_collator=BlockCollator(),
        objective=bundled_objective(recipe.seed, recipe.text_full_share),
        term=term,
    )
    if carried is not None and trainer.is_world_process_zero():
        note_start(start, output_dir)
    has_average = trainer.average is not None
    trainer.train(resume_from_checkpoint=newest_checkpoint(output_dir, has_average))
    if trainer.average is not None:
        trainer.average.copy_to(model)
    return model


def training_arguments(
    output_dir: Path, recipe: Rates, cycle: int, micro_batch: int
) -> BlockTrainingArguments:
    """Trainer arguments of a recipe; one optimiser step is one cycle on any number of ranks.

    Raises:
        ValueError: if a cycle is not a whole number of micro-batches on every rank.
    """
    arguments = BlockTrainingArguments(
        output_dir=str(output_dir),
        max_steps=recipe.steps,
        per_device_train_batch_size=micro_batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": recipe.decay_steps, "min_lr_ratio": 0.02},
        warmup_steps=recipe.warmup_steps,
        weight_decay=0.01,
        max_grad_norm=1.0,
        average_decay=recipe.average_decay,
        bf16=native_bfloat16(recipe.bf16),
        logging_steps=20,
        save_steps=recipe.save_steps,
        save_total_limit=2,
        report_to=[],
        ddp_find_unused_parameters=False,
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
    )
    # The arguments start torch.distributed, so only now is the number of ranks known.
    accumulation, rest = divmod(cycle, micro_batch * arguments.world_size)
    if rest:
        raise ValueError(
            f"a cycle of {cycle} samples does not divide into micro-batches of {micro_batch} on "
            f"{arguments.world_size} processes: use a number of processes that divides "
            f"{cycle // micro_batch}"
        )
    arguments.gradient_accumulation_steps = accumulation
    return arguments
