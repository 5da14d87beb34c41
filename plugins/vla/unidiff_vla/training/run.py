"""The run: image tokenizer, codes, then the policy; each part is kept and not made again."""

# Shapes: N frames, C cameras, H height, W width.

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback

from unidiff.bundled import bundled_checkpoint
from unidiff.data.collator import BlockCollator
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.data.tasks import RowMaker
from unidiff.model.checkpoint import check_model_folder
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.prompts import layout_for_tokenizer
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.training.bundled import training_arguments
from unidiff.training.code_embeddings import initialise_code_embeddings
from unidiff.training.finetune import StepBar
from unidiff.training.image_tokenizer import (
    TrainImageTokenizerOptions,
    images_to_pixels,
    rare_colour_weights,
    small_detail_weights,
    train_image_tokenizer,
)
from unidiff.training.run_folder import check_same_settings
from unidiff.training.trainer import (
    BlockDiffusionTrainer,
    newest_checkpoint,
)
from unidiff_vla.environments.instructions import (
    METAWORLD_TASKS,
    task_of_instruction,
    told_in_training,
)
from unidiff_vla.policy.fit import policy_training

from .objectives import policy_blocks, policy_model, policy_objective
from .recipe import PolicyRecipe
from .recordings import Recordings, read_recordings
from .source import CodedFrames, Recorded, turns_of

TOKENIZER_FOLDER, CODES_FILE, FACTS_FILE = "image_tokenizer", "codes.npz", "policy_run.json"
RUN_FOLDER = "run"
_ENCODE_BATCH = 256
_SPEED = ("compile_layers", "save_steps")  # may differ where a run goes on
_MOST_TOKENIZER_PICTURES = 60_000
Note = Callable[[str], None]


def train_policy(
    data: Sequence[str | Path],
    output_dir: str | Path,
    recipe: PolicyRecipe,
    *,
    start: str | Path | None = None,
    note: Note = print,
) -> UniDiffForBlockDiffusion:
    """Train a policy on recorded data sets, or go on where an earlier call stopped.

    Args:
        data: folders of LeRobotDataset v3 with pictures, states and actions, all of the same
            features; they are not read where `output_dir` holds their codes.
        output_dir: everything the run makes; `assemble_policy` makes a checkpoint of it.
        recipe: sizes and rates.
        start: checkpoint whose text embeddings and layers the run begins with, where they fit;
            None: the bundled one.
        note: told what is being done.

    Returns:
        The averaged model.

    Raises:
        ValueError: if a data set does not fit, or the folder holds a run with another recipe.
        FileNotFoundError: if a data set is damaged.
    """
    output_dir, start = Path(output_dir), Path(start or bundled_checkpoint())
    check_model_folder(start)
    settings = {name: value for name, value in asdict(recipe).items() if name not in _SPEED}
    check_same_settings(output_dir / FACTS_FILE, settings, "another recipe")
    frames, states, actions = coded_frames(data, output_dir, recipe, note)
    tokenizer = AutoTokenizer.from_pretrained(bundled_checkpoint())
    config = policy_config(tokenizer, recipe, frames.picture_grid, states, actions)
    model = _new_model(config, recipe, start, note)
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
    config: UniDiffConfig, recipe: PolicyRecipe, start: Path, note: Note
) -> UniDiffForBlockDiffusion:
    """Weights to train: fresh ones, and what fits of a checkpoint."""
    torch.manual_seed(recipe.seed)
    model = policy_model(recipe.objective, config)
    initialise_code_embeddings(model, recipe.levels, recipe.seed)
    note(f"{begin_with(model, start)} tensors of the start taken")
    model.set_attn_implementation("eager")
    if recipe.compile_layers:
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    return model


def coded_frames(
    data: Sequence[str | Path], output_dir: Path, recipe: PolicyRecipe, note: Note
) -> tuple[CodedFrames, BinTokenizer, BinTokenizer]:
    """Frames as codes, and the (state, action) bins; made once and kept in `output_dir`."""
    path = output_dir / CODES_FILE
    if path.is_file():
        note(f"{path} holds the frames as codes: the data set is not read again")
    else:
        recordings = read_recordings(data, recipe.horizon)
        check_divisible(recordings, recipe)
        note(f"{len(recordings)} frames of {recordings.cameras}")
        tokenizer = fit_image_tokenizer(recordings, output_dir / TOKENIZER_FOLDER, recipe)
        note("coding the pictures")
        _write_codes(path, recordings, tokenizer, recipe)
    arrays = _read_codes(path)
    states, actions = stored_bins(arrays)
    if recipe.still_share and not holds_still(actions):
        raise ValueError(
            f"still_share={recipe.still_share} teaches the action 0 for words that do not fit the "
            f"scene, and recorded actions range from {actions.low} to {actions.high}: give "
            "--still-share 0, for these seem to be places and not motions"
        )
    instructions = tuple(str(one) for one in arrays["instructions"])
    names = [task_of_instruction(one) for one in instructions]
    if recorded := {name for name in names if name in METAWORLD_TASKS and name is not None}:
        told = [one for one in told_in_training(recorded) if one[0] not in instructions]
        instructions += tuple(text for text, _ in told)
        names += [task for _, task in told]
    order = sorted({name for name in names if name is not None})
    latest = np.cumsum(arrays["is_fresh"]) - 1  # an episode's first frame is always fresh
    frames = CodedFrames(
        pictures=arrays["pictures"][latest],
        states=arrays["states"],
        chunks=arrays["chunks"],
        instruction_index=arrays["instruction_index"],
        instructions=instructions,
        task_of=tuple(
            -1 - place if name is None else order.index(name) for place, name in enumerate(names)
        ),
        still=actions.encode(np.zeros((recipe.horizon, actions.dim))),
        episode_index=arrays["episode_index"],
        is_fresh=arrays["is_fresh"],
        turns=turns_of(arrays["chunks"][:, 0], actions.num_bins, arrays["episode_index"]),
    )
    return frames, states, actions


def holds_still(actions: BinTokenizer) -> bool:
    """Whether an action of zeros lies within what was recorded."""
    return all(low <= 0 <= high for low, high in zip(actions.low, actions.high, strict=True))


def check_divisible(recordings: Recordings, recipe: PolicyRecipe) -> None:
    """Raise ValueError if the image tokenizer cannot halve the pictures as often as it should."""
    side, factor = (
        next(iter(recordings.pictures.values())).shape[1],
        2 ** len(recipe.tokenizer_widths),
    )
    if side % factor:
        raise ValueError(
            f"expected pictures whose side is a multiple of {factor}; got {side} px: scale the "
            "data set, or give the recipe fewer tokenizer_widths"
        )


def stored_bins(arrays: Mapping[str, np.ndarray]) -> tuple[BinTokenizer, BinTokenizer]:
    """(state bins, action bins) of the coded frames' file."""
    states, actions = (
        BinTokenizer.from_dict(json.loads(str(arrays[f"{name}_bins"])))
        for name in ("state", "action")
    )
    return states, actions


def cameras_of(run_dir: str | Path) -> tuple[str, ...]:
    """Names of the cameras that a run saw, in order; raises FileNotFoundError before it has."""
    path = Path(run_dir) / CODES_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run has not coded its pictures yet")
    with np.load(path, allow_pickle=False) as stored:
        return tuple(str(one) for one in stored["cameras"])


def fit_image_tokenizer(
    recordings: Recordings, folder: Path, recipe: PolicyRecipe
) -> FSQImageTokenizer:
    """The image tokenizer of a data set's pictures; rare colours and small things count more."""
    if (folder / "model.safetensors").is_file():
        model: FSQImageTokenizer = FSQImageTokenizer.from_pretrained(folder)
        return model.eval()
    number, size = next(iter(recordings.pictures.values())).shape[:2]
    stride = max(1, number * len(recordings.pictures) // _MOST_TOKENIZER_PICTURES)
    pictures = np.concatenate([one[::stride] for one in recordings.pictures.values()])
    config = FSQImageTokenizerConfig(
        levels=recipe.levels,
        hidden_sizes=recipe.tokenizer_widths,
        num_encoder_blocks=2,
        num_decoder_blocks=2,
        image_size=size,
    )
    options = TrainImageTokenizerOptions(
        steps=recipe.tokenizer_steps,
        batch_size=recipe.tokenizer_batch,
        seed=recipe.seed,
        flip=False,
        bfloat16=recipe.bf16,
    )
    weights = small_detail_weights(pictures) * np.sqrt(rare_colour_weights(pictures))
    weights /= weights.mean(dtype=np.float64)
    return train_image_tokenizer(pictures, config, options, folder, pixel_weights=weights)


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


@torch.no_grad()
def begin_with(model: UniDiffForBlockDiffusion, folder: Path) -> int:
    """Copy what fits of a checkpoint: how many tensors.

    Of a checkpoint with another layout of ids the words are taken, and what stands for pictures,
    states and actions stays as it is.
    """
    weights = load_file(folder / "model.safetensors")
    layout = model.config.layout
    text, is_same = layout.range_of("text"), UniDiffConfig.from_pretrained(folder).layout == layout
    own, taken = model.state_dict(), 0
    for name, weight in weights.items():
        if name not in own:
            continue
        is_table = name.endswith("embed_tokens.weight") and not is_same
        if is_table and weight.shape[1] == own[name].shape[1]:
            own[name][text.start : text.stop] = weight[text.start : text.stop].to(own[name])
            taken += 1
        elif weight.shape == own[name].shape:
            own[name].copy_(weight.to(own[name]))
            taken += 1
    return taken


def _read_codes(path: Path) -> dict[str, np.ndarray]:
    """The coded frames; raises ValueError if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (BadZipFile, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): delete it") from error


def _write_codes(
    path: Path, recordings: Recordings, tokenizer: FSQImageTokenizer, recipe: PolicyRecipe
) -> None:
    """Code everything, each picture once; the file is there whole or not at all."""
    states = BinTokenizer.fit(recordings.states, num_bins=recipe.num_state_bins)
    actions = BinTokenizer.fit(
        recordings.chunks,
        num_bins=recipe.num_action_bins,
        horizon=recipe.horizon,
        statistics="min_max",
    )
    pictures = [_encode(tokenizer, one) for one in recordings.pictures.values()]
    partial = path.with_name("partial.npz")
    np.savez_compressed(
        partial,
        pictures=_narrow(np.stack(pictures, axis=1), tokenizer.codebook_size),
        states=_narrow(states.encode(recordings.states), states.num_bins),
        chunks=_narrow(actions.encode(recordings.chunks), actions.num_bins),
        instruction_index=recordings.instruction_index,
        instructions=np.array(recordings.instructions),
        episode_index=recordings.episode_index,
        is_fresh=recordings.is_fresh,
        cameras=np.array(recordings.cameras),
        state_bins=json.dumps(states.to_dict()),
        action_bins=json.dumps(actions.to_dict()),
    )
    os.replace(partial, path)


def _narrow(codes: np.ndarray, number: int) -> np.ndarray:
    """Codes below `number` in the narrowest type."""
    return codes.astype(np.min_scalar_type(number - 1))


def _encode(tokenizer: FSQImageTokenizer, pictures: np.ndarray) -> np.ndarray:
    """(N, h * w) codes of (N, H, W, 3) pictures."""
    parts = [
        tokenizer.get_image_tokens(images_to_pixels(pictures[start : start + _ENCODE_BATCH]))
        for start in range(0, len(pictures), _ENCODE_BATCH)
    ]
    return torch.cat(parts).numpy()
