"""`unidiff prepare`, `train` and `eval`."""

import json

import numpy as np
import pytest

from unidiff.cli.training import RecipeOptions
from unidiff.data.prepared import save_arrays


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A few samples of each prepared part."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def codes(count):
        return rng.integers(0, 240, (count, 64)).astype(np.uint16)

    (folder / "manifest.json").write_text("{}")
    labels = rng.integers(0, 10, 24)
    save_arrays(folder / "garments_train.npz", codes=codes(24), mirrored=codes(24), labels=labels)
    from unidiff.data.prepared import training_scene

    sizes = np.array([len(training_scene(seed).objects) for seed in range(24)])
    save_arrays(folder / "scenes_train.npz", codes=codes(24), num_objects=sizes)
    save_arrays(
        folder / "demonstrations_train.npz",
        codes=codes(24),
        states=rng.uniform(0, 1, (24, 2)).astype(np.float32),
        chunks=rng.uniform(-1, 1, (24, 8, 2)).astype(np.float32),
        instructions=np.array(["reach the red target"] * 24),
    )
    ids = rng.integers(20, 2048, 2000).astype(np.uint16)
    save_arrays(folder / "text_train.npz", ids=ids, starts=np.array([0, 900, 2000]))
    return folder


@pytest.fixture
def tokenizers(tiny_checkpoint, repository_root):
    return (
        *("--image-tokenizer", tiny_checkpoint / "image_tokenizer"),
        *("--text-tokenizer", repository_root / "tokenizers" / "text"),
    )


TINY = (
    *("--hidden-size", 64, "--num-layers", 1, "--intermediate-size", 32),
    *("--save-steps", 1, "--no-bf16"),
)


def test_train_makes_a_checkpoint_and_goes_on_where_it_stopped(
    run_command, data_dir, tokenizers, tmp_path
):
    line = ("train", "--recipe", "bundled", "--data", data_dir, "--out", tmp_path, *TINY)
    line = (*line, *tokenizers, "--steps")
    first = run_command(*line, 1, checkpoint=None)
    assert first.code == 0, (first.err, first.exception)
    assert first.out.strip().splitlines()[-1] == str(tmp_path / "checkpoint")
    (tmp_path / "checkpoint-7").mkdir()  # as a run killed while saving leaves it
    second = run_command(*line, 2, "--warmup-steps", 0, "--decay-steps", 1, checkpoint=None)
    assert second.code == 0, (second.err, second.exception)
    log = json.loads((tmp_path / "checkpoint" / "training_log.json").read_text())
    assert log["step"] == 2
    facts = run_command("info", "--json", checkpoint=tmp_path / "checkpoint").report["checkpoint"]
    assert facts["layers x width"] == "1 x 64"


def test_train_full_makes_a_checkpoint_of_full_attention(
    run_command, data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("unidiff.training.full_variant.WINDOWS", {24: 4})
    line = ("train", "--recipe", "full", "--data", data_dir, "--out", tmp_path, *TINY)
    result = run_command(*line, "--steps", 1, checkpoint=None)
    assert result.code == 0, (result.err, result.exception)
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert (config["attention_pattern"], config["num_hidden_layers"]) == ("full", 1)
    refused = run_command(*line, "--carried", tmp_path, checkpoint=None)
    assert refused.code == 2
    assert "--carried" in refused.err


def test_a_size_of_its_own_starts_the_full_recipe_afresh():
    assert RecipeOptions(steps=9).recipe("full").adapts
    assert not RecipeOptions(num_layers=2).recipe("full").adapts


def test_train_interrupted_says_how_to_go_on(
    run_command, data_dir, tokenizers, tmp_path, monkeypatch
):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("unidiff.training.bundled.train_bundled", interrupted)
    line = ("train", "--data", data_dir, "--out", tmp_path, *tokenizers)
    result = run_command(*line, checkpoint=None)
    assert result.code == 130
    assert "same command" in result.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--recipe", "soup"), "--recipe"),
        (("--resume", "perhaps"), "--resume"),
        (("--resume", "never"), "holds a run"),
        (("--data", "nowhere"), "unidiff prepare"),
        (("--hidden-size", 100), "multiple of 64"),
        (("--steps", 10, "--warmup-steps", 20), "warmup_steps"),
        (("--text-tokenizer", "nowhere"), "tokenizer.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run_command, data_dir, tokenizers, tmp_path, options, words
):
    (tmp_path / "checkpoint-1").mkdir()
    line = ("train", "--data", data_dir, "--out", tmp_path, *tokenizers, *options)
    result = run_command(*line, checkpoint=None)
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_short_run_shortens_warm_up_and_decay():
    recipe = RecipeOptions(steps=60).recipe()
    standard = RecipeOptions().recipe()
    assert recipe.steps == 60
    assert recipe.warmup_steps == 60 * standard.warmup_steps // standard.steps
    assert recipe.decay_steps == 60 * standard.decay_steps // standard.steps


def test_prepare_passes_tokenizers_and_sizes_on(run_command, tokenizers, tmp_path, monkeypatch):
    calls = []

    def record(data_dir, image_tokenizer, tokenizer, options, progress):
        progress("garments_train", 0, 5)
        calls.append((data_dir, image_tokenizer.codebook_size, len(tokenizer), options))

    monkeypatch.setattr("unidiff.data.prepared.prepare", record)
    line = ("prepare", "--out", tmp_path / "data", *tokenizers, "--scenes", 7, "--seed", 3)
    result = run_command(*line, checkpoint=None)
    assert result.code == 0, (result.err, result.exception)
    (data_dir, num_codes, num_ids, options) = calls[0]
    assert data_dir == tmp_path / "data"
    assert (num_codes, num_ids) == (240, 2048)
    assert (options.num_scenes, options.num_demonstrations, options.seed) == (7, 80_000, 3)


def test_prepare_names_a_missing_tokenizer(run_command, tmp_path):
    line = ("prepare", "--out", tmp_path, "--image-tokenizer", tmp_path, "--text-tokenizer", "x")
    result = run_command(*line, checkpoint=None)
    assert result.code == 2
    assert "config.json" in result.err
