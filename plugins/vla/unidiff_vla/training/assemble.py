"""A finished run becomes one folder that `unidiff_vla.policy.load_policy` reads."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from unidiff.bundled import bundled_checkpoint
from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.image import FSQImageTokenizer
from unidiff.tokens.image_processing import UniDiffImageProcessor
from unidiff.tokens.layout import TokenLayout
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.whole_folder import whole_folder
from unidiff.training.trainer import AVERAGE_FILE, newest_checkpoint
from unidiff_vla.policy import PolicySettings

from .codes import CODES_FILE, TOKENIZER_FOLDER, cameras_of, stored_bins
from .objectives import policy_model, policy_settings
from .run import FACTS_FILE, RUN_FOLDER


def assemble_policy(
    run_dir: str | Path,
    output_dir: str | Path,
    settings: PolicySettings,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write model, processor, policy settings and the run's facts; whole or not at all.

    Args:
        run_dir: `output_dir` of `train_policy`; its newest whole checkpoint is taken.
        output_dir: replaced if it is there.
        settings: how the policy plans; its cameras must be those of the run. Of its decoding a
            baseline keeps how tokens are drawn, and has its own steps and order.
        dtype: of the stored weights.

    Raises:
        FileNotFoundError: if the run has no whole checkpoint.
        ValueError: if the settings name other cameras than the run.
    """
    run_dir, output_dir = Path(run_dir), Path(output_dir)
    checkpoint = newest_checkpoint(run_dir / RUN_FOLDER, needs_average=True)
    if checkpoint is None:
        raise FileNotFoundError(f"{run_dir / RUN_FOLDER} holds no whole checkpoint yet")
    with np.load(run_dir / CODES_FILE, allow_pickle=False) as stored:
        states, actions = stored_bins(stored)
    cameras = cameras_of(run_dir)
    named = settings.cameras or (cameras if len(cameras) == 1 else None)
    if named != cameras:
        raise ValueError(f"the run saw the cameras {cameras}; the settings have {settings.cameras}")
    recipe = json.loads((run_dir / FACTS_FILE).read_text(encoding="utf-8"))
    settings = policy_settings(recipe["objective"], settings)
    model = policy_model(recipe["objective"], UniDiffConfig.from_pretrained(checkpoint))
    model.load_state_dict(load_file(checkpoint / AVERAGE_FILE), strict=False)
    config = model.config
    model.generation_config = UniDiffGenerationConfig.with_ids_of(config)
    processor = _processor(run_dir, config.layout, states, actions)
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    facts = {
        "recipe": recipe,
        "cameras": cameras,
        "step": state["global_step"],
        "history": state["log_history"],
    }
    with whole_folder(output_dir) as partial:
        model.to(dtype).save_pretrained(partial)
        processor.save_pretrained(partial)
        settings.save(partial)
        log = json.dumps(facts, indent=1) + "\n"
        (partial / "training_log.json").write_text(log, encoding="utf-8")
    return output_dir


def _processor(
    run_dir: Path, layout: TokenLayout, states: BinTokenizer, actions: BinTokenizer
) -> UniDiffProcessor:
    """The processor of a run: its image tokenizer and bins, the bundled checkpoint's words."""
    image_tokenizer = FSQImageTokenizer.from_pretrained(run_dir / TOKENIZER_FOLDER)
    size = image_tokenizer.config.image_size
    return UniDiffProcessor(
        image_processor=UniDiffImageProcessor(size={"height": size, "width": size}),
        tokenizer=AutoTokenizer.from_pretrained(bundled_checkpoint()),
        token_layout=layout,
        action_bins=actions,
        state_bins=states,
        image_model=image_tokenizer.eval(),
    )
