"""A run becomes a checkpoint: averaged weights, processor, card, log and curves."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoProcessor

import unidiff  # noqa: F401  registers the Auto classes
from unidiff.data.prepared import save_arrays
from unidiff.evaluation.suite import load_suite
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.text import build_text_tokenizer
from unidiff.training import assemble
from unidiff.training.assemble import assemble_checkpoint, read_run
from unidiff.training.bundled import bins_of, bundled_layout
from unidiff.training.curves import draw_curves, series
from unidiff.training.model_card import NOT_MEASURED, add_evaluation

HISTORY = [
    {"step": 20, "loss": 3.0, "text_nats": 5.0, "learning_rate": 0.001},
    {"step": 40, "loss": 2.0, "text_nats": 4.0, "learning_rate": 0.002},
    {"step": 40, "train_runtime": 1.0},
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_text_tokenizer(["a photo of a sneaker. push the red puck. what is it?"] * 9, 300)


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tokenizer):
    """(run, data, image tokenizer): folders of an unfinished run with two checkpoints."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    config = FSQImageTokenizerConfig(
        hidden_sizes=[8, 8], num_encoder_blocks=0, num_decoder_blocks=0, num_stage_blocks=0
    )
    image_tokenizer = FSQImageTokenizer(config)
    image_tokenizer.save_pretrained(root / "image_tokenizer")
    layout = bundled_layout(tokenizer, image_tokenizer.codebook_size)
    model = UniDiffForBlockDiffusion(
        UniDiffConfig(
            vocab_size=layout.num_ids,
            token_layout=layout.to_dict(),
            mask_token_id=layout.mask_token_id,
            pad_token_id=layout.pad_token_id,
            bos_token_id=2,
            eos_token_id=layout.end_token_ids[0],
        )
    )
    for step in (20, 40):
        folder = root / "run" / f"checkpoint-{step}"
        model.save_pretrained(folder)
        average = {name: p.detach() + step for name, p in model.named_parameters()}
        save_file(average, folder / "average.safetensors")
        state = {"global_step": step, "max_steps": 60, "log_history": HISTORY}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    rng = np.random.default_rng(0)
    (root / "data").mkdir()
    save_arrays(
        root / "data" / "demonstrations_train.npz",
        states=rng.uniform(0, 1, (50, 2)).astype(np.float32),
        chunks=rng.uniform(-1, 1, (50, 8, 2)).astype(np.float32),
    )
    return root / "run", root / "data", root / "image_tokenizer"


@pytest.fixture
def checkpoint(parts, tokenizer, tmp_path):
    return assemble_checkpoint(*parts, tokenizer, tmp_path / "checkpoint")


def weights_of(folder, name="model.norm.weight"):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.named_parameters())[name]


def test_an_assembled_checkpoint_answers_through_the_auto_classes(checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert model.dtype == torch.bfloat16
    inputs = processor.for_image("draw a sneaker.")
    output = model.generate(**inputs, max_denoising_steps=2, seed=0)
    assert processor.post_process(output, inputs)[0].size == (32, 32)


def test_the_newest_average_is_what_ships(checkpoint, parts):
    plain = read_run(parts[0])
    assert (plain.step, plain.max_steps, plain.is_averaged) == (40, 60, True)
    torch.testing.assert_close(weights_of(checkpoint), torch.full((64,), 41.0))


def test_a_checkpoint_that_is_being_written_is_passed_over(parts, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(parts[0], run)
    (run / "checkpoint-40" / "average.safetensors").unlink()
    assert read_run(run).step == 20


def test_a_run_without_average_ships_its_last_weights(parts, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(parts[0], run)
    for path in run.glob("*/average.safetensors"):
        path.unlink()
    state = read_run(run)
    assert (state.step, state.is_averaged) == (40, False)
    torch.testing.assert_close(state.model.model.norm.weight.detach(), torch.ones(64))


def test_bins_are_those_of_training(checkpoint, parts):
    with np.load(parts[1] / "demonstrations_train.npz") as arrays:
        states, actions = bins_of(dict(arrays))
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert processor.state_bins == states
    assert processor.action_bins == actions


def test_decoding_defaults_are_saved(checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    given = model.generation_config.given()
    sampler = load_suite("bundled")["captions"]["sampler"]
    for name in ("unmasking_strategy", "entropy_bound", "block_length"):
        assert given[name] == sampler[name]
    assert given["max_new_tokens"] == assemble.DEFAULT_NEW_TOKENS


def test_papers_tell_about_the_run(checkpoint):
    card = (checkpoint / "README.md").read_text()
    assert "40 optimiser steps of 60 planned" in card
    assert "| text: bound | 4.000 |" in card
    assert NOT_MEASURED in card
    log = json.loads((checkpoint / "training_log.json").read_text())
    assert log["history"] == HISTORY
    assert Image.open(checkpoint / "curves.png").size[0] > 500


def test_measured_numbers_replace_the_note_and_each_other(checkpoint):
    for value in (0.5, 0.75):
        metric = {"value": value, "aim": 0.9, "interval": [0.7, 0.8], "sampler": {"steps": 4}}
        add_evaluation(checkpoint, {"seed": 3, "metrics": {"taste": metric, "psnr": 26.5}})
    card = (checkpoint / "README.md").read_text()
    assert NOT_MEASURED not in card
    assert "0.5 |" not in card
    assert "| `taste` | 0.75 | 0.7 to 0.8 | 0.9 |" in card
    assert "steps=4" in card
    assert "| `psnr` | 26.5 |" in card
    assert "Seed 3" in card
    assert card.count("## Limits") == 1


def test_a_report_without_metrics_is_refused(checkpoint):
    with pytest.raises(ValueError, match="metrics"):
        add_evaluation(checkpoint, {"seed": 0})


def test_assembling_again_replaces_the_folder(parts, tokenizer, checkpoint):
    (checkpoint / "stale.txt").write_text("old")
    assemble_checkpoint(*parts, tokenizer, checkpoint, dtype=torch.float32)
    assert not (checkpoint / "stale.txt").exists()
    assert AutoModelForCausalLM.from_pretrained(checkpoint).dtype == torch.float32
    names = {path.name for path in checkpoint.parent.iterdir()}
    assert names == {"checkpoint"}


def test_a_folder_too_large_to_ship_is_refused(parts, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="may ship"):
        assemble_checkpoint(*parts, tokenizer, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_a_run_without_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="unidiff train"):
        read_run(tmp_path)


def test_weights_of_another_model_are_refused(parts, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(parts[0], run)
    save_file({"other": torch.ones(2)}, run / "checkpoint-40" / "average.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        read_run(run)


def test_a_missing_image_tokenizer_is_named(parts, tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="image tokenizer"):
        assemble_checkpoint(parts[0], parts[1], tmp_path, tokenizer, tmp_path / "checkpoint")


def test_series_keep_the_lines_that_have_the_key(tmp_path):
    assert series(HISTORY, "text_nats") == ([20, 40], [5.0, 4.0])
    assert series(HISTORY, "image_nats") == ([], [])
    draw_curves([], tmp_path / "empty.png")
    assert Image.open(tmp_path / "empty.png").size[0] > 500
