"""A training run and its tokenizers become one checkpoint folder that `from_pretrained` reads.

Averaged weights, processor with image tokenizer and bins, decoding defaults, model card, log and
curves. Written beside the target and renamed, so a folder is whole or not there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from unidiff.bundled import bundled_checkpoint
from unidiff.data.prepared import load_arrays
from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.image import FSQImageTokenizer
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.whole_folder import whole_folder

from .bundled import bins_of
from .carried import LOG_FILE, start_of
from .curves import draw_curves
from .model_card import write_model_card
from .trainer import AVERAGE_FILE, newest_checkpoint

MAX_BYTES = 40_000_000
CURVES_FILE = "curves.png"
DEFAULT_NEW_TOKENS = 64


@dataclass(frozen=True)
class RunState:
    """What one checkpoint of a training run holds.

    Attributes:
        model: the averaged model in float32, or the plain one where no average was kept.
        is_averaged: whether it is the average.
        step: optimiser steps done, those of a carried run included.
        max_steps: optimiser steps planned.
        history: the trainer's log lines.
    """

    model: UniDiffForBlockDiffusion
    is_averaged: bool
    step: int
    max_steps: int
    history: list[dict[str, Any]]


def assemble_checkpoint(
    run_dir: str | Path,
    data_dir: str | Path,
    image_tokenizer_dir: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | Path,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Folder of a finished checkpoint: everything that `from_pretrained` needs, and its papers.

    Args:
        run_dir: output of `train_bundled`; its newest whole checkpoint is taken, so a run that is
            still going may be read.
        data_dir: prepared parts; the bins are fitted to its demonstrations, as in training.
        image_tokenizer_dir: folder of the image tokenizer that made the codes.
        tokenizer: text tokenizer of the run.
        output_dir: replaced if it is there.
        dtype: of the stored weights; the image tokenizer keeps its own.

    Raises:
        FileNotFoundError: if the run has no whole checkpoint, or a folder is missing.
        ValueError: if the parts do not fit, or the folder would be larger than `MAX_BYTES`.
    """
    output_dir = Path(output_dir)
    run = read_run(run_dir)
    image_tokenizer = _image_tokenizer(Path(image_tokenizer_dir))
    states, actions = bins_of(load_arrays(Path(data_dir), "demonstrations_train"))
    processor = UniDiffProcessor(
        tokenizer=tokenizer,
        token_layout=run.model.config.layout,
        action_bins=actions,
        state_bins=states,
        image_model=image_tokenizer,
    )
    run.model.generation_config = _decoding_defaults(run.model.config)
    with whole_folder(output_dir) as partial:
        run.model.to(dtype).save_pretrained(partial)
        processor.save_pretrained(partial)
        _write_papers(partial, run, processor)
        _check_size(partial)
    return output_dir


def assemble_full(
    run_dir: str | Path, output_dir: str | Path, dtype: torch.dtype = torch.bfloat16
) -> Path:
    """Folder of the full-attention variant: its weights, the bundled checkpoint's processor, log.

    Args:
        run_dir: output of `train_full`; its newest whole checkpoint is taken.
        output_dir: replaced if it is there.
        dtype: of the stored weights.

    Raises:
        FileNotFoundError: if the run has no whole checkpoint.
    """
    output_dir = Path(output_dir)
    run = read_run(run_dir)
    processor = UniDiffProcessor.from_pretrained(bundled_checkpoint())
    run.model.generation_config = _decoding_defaults(run.model.config)
    with whole_folder(output_dir) as partial:
        run.model.to(dtype).save_pretrained(partial)
        processor.save_pretrained(partial)
        write_log(partial, run)
    return output_dir


def read_run(run_dir: str | Path) -> RunState:
    """The newest whole checkpoint of a training run.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if its weights do not fit its configuration.
    """
    folder, weights = _newest_checkpoint(Path(run_dir))
    state = json.loads((folder / "trainer_state.json").read_text())
    model = UniDiffForBlockDiffusion(UniDiffConfig.from_pretrained(folder))
    start = start_of(Path(run_dir))
    report = model.load_state_dict(load_file(weights), strict=False)
    missing = [name for name in report.missing_keys if name not in model._tied_weights_keys]
    if missing or report.unexpected_keys:
        raise ValueError(
            f"{weights} does not fit {folder / 'config.json'}: missing {missing}, unexpected "
            f"{report.unexpected_keys}"
        )
    return RunState(
        model=model.eval(),
        is_averaged=weights.name == AVERAGE_FILE,
        step=start.steps + state["global_step"],
        max_steps=start.steps + state["max_steps"],
        history=start.extended(state["log_history"]),
    )


def _newest_checkpoint(run_dir: Path) -> tuple[Path, Path]:
    """(folder, weights file) of the newest whole checkpoint; averaged ones come first."""
    for name, needs_average in ((AVERAGE_FILE, True), ("model.safetensors", False)):
        folder = newest_checkpoint(run_dir, needs_average)
        if folder is not None:
            return folder, folder / name
    raise FileNotFoundError(
        f"{run_dir} holds no whole checkpoint-N: run `unidiff train --recipe bundled --out "
        f"{run_dir}` until it has saved one"
    )


def _image_tokenizer(folder: Path) -> FSQImageTokenizer:
    """The image tokenizer in a folder; raises FileNotFoundError where there is none."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no image tokenizer (config.json and model.safetensors)"
        )
    model: FSQImageTokenizer = FSQImageTokenizer.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def _decoding_defaults(config: UniDiffConfig) -> UniDiffGenerationConfig:
    """Decoding options that are saved with the checkpoint: those of text in the suite `bundled`."""
    is_free = config.attention_pattern != "block_causal"  # else blocks lie on the trained grid
    return UniDiffGenerationConfig.with_ids_of(
        config,
        max_new_tokens=DEFAULT_NEW_TOKENS,
        unmasking_strategy="entropy_bound",
        entropy_bound=0.4,
        block_length=8 if is_free else None,
    )


def write_log(folder: Path, run: RunState) -> None:
    """The trainer's log, and how far the run is."""
    log = {
        "step": run.step,
        "max_steps": run.max_steps,
        "is_averaged": run.is_averaged,
        "history": run.history,
    }
    (folder / LOG_FILE).write_text(json.dumps(log, indent=1) + "\n")


def write_history(folder: Path, run: RunState) -> None:
    """The trainer's log and its curves."""
    write_log(folder, run)
    draw_curves(run.history, folder / CURVES_FILE)


def _write_papers(folder: Path, run: RunState, processor: UniDiffProcessor) -> None:
    """Training log, curves and model card."""
    write_history(folder, run)
    facts = {
        "num_parameters": run.model.num_parameters(),
        "num_tokenizer_parameters": processor.image_tokenizer.num_parameters(),
        "step": run.step,
        "max_steps": run.max_steps,
        "is_averaged": run.is_averaged,
        "dtype": str(run.model.dtype).removeprefix("torch."),
    }
    write_model_card(folder, run.model.config, facts, run.history)


def _check_size(folder: Path) -> None:
    """Raise ValueError if the folder is too large to ship."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        raise ValueError(
            f"{folder} has {size / 1e6:.1f} MB, more than the {MAX_BYTES / 1e6:.0f} MB that may "
            "ship: train a smaller model"
        )
