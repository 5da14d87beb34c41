"""The bundled recipe on a few made-up samples: it trains, resumes and fits any number of ranks."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import unidiff.training.bundled as bundled
from unidiff.data.prepared import save_arrays, training_scene
from unidiff.model import UniDiffForBlockDiffusion
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.tokens.text import SPECIAL_TOKENS
from unidiff.training.bundled import (
    bins_of,
    bundled_config,
    bundled_layout,
    bundled_objective,
    bundled_stream,
    train_bundled,
)
from unidiff.training.carried import carry
from unidiff.training.recipes import (
    MIXTURE,
    BundledRecipe,
    drafting_recipe,
    filling_recipe,
    guiding_recipe,
    settling_recipe,
)
from unidiff.training.trainer import AVERAGE_FILE

LEVELS = (8, 6, 5)
CODES = 240
SMALL = BundledRecipe(
    steps=4,
    decay_steps=1,
    warmup_steps=1,
    hidden_size=64,
    num_layers=1,
    intermediate_size=64,
    save_steps=2,
    bf16=False,
    average_decay=0.5,
)


@pytest.fixture(scope="module")
def tokenizer(repository_root: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(repository_root / "tokenizers" / "text")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared parts with a handful of random samples each."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def codes(count: int) -> np.ndarray:
        return rng.integers(0, CODES, (count, 64)).astype(np.uint16)

    save_arrays(
        folder / "garments_train.npz", codes=codes(9), mirrored=codes(9), labels=np.arange(9)
    )
    sizes = np.array([len(training_scene(seed).objects) for seed in range(12)])
    save_arrays(folder / "scenes_train.npz", codes=codes(12), num_objects=sizes)
    save_arrays(
        folder / "demonstrations_train.npz",
        codes=codes(7),
        states=rng.uniform(-1, 1, (7, 2)).astype(np.float32),
        chunks=rng.uniform(-1, 1, (7, 8, 2)).astype(np.float32),
        instructions=np.array(["push the red disc to the blue mark."] * 7),
    )
    ids = rng.integers(20, 2000, 2000).astype(np.uint16)
    save_arrays(folder / "text_train.npz", ids=ids, starts=np.array([0, 900, 2000]))
    return folder


@pytest.fixture
def small_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight samples a step, in micro-batches of two."""
    for name in MIXTURE:
        monkeypatch.setitem(MIXTURE, name, 2 if name == "library_text" else 1)
    monkeypatch.setattr(bundled, "MICRO_BATCH", 2)


def train(
    data_dir: Path,
    output_dir: Path,
    tokenizer: Any,
    carried: Path | None = None,
    **fields: Any,
) -> Any:
    recipe = BundledRecipe(**{**vars(SMALL), **fields})
    return train_bundled(data_dir, output_dir, tokenizer, LEVELS, recipe, carried=carried)


def test_layout_reserves_every_special_id_but_the_end(tokenizer: PreTrainedTokenizerBase) -> None:
    layout = bundled_layout(tokenizer, CODES)
    text = layout.allowed_ids("text", layout.num_ids)
    special = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert [i for i in special if text[i]] == list(layout.end_token_ids) == [3]
    assert layout.range_of("image").size == CODES
    assert layout.range_of("action").size == layout.range_of("state").size == 256
    config = bundled_config(layout, BundledRecipe())
    assert config.vocab_size % 64 == 0
    assert config.layout == layout


def test_the_model_fits_the_bundle(tokenizer: PreTrainedTokenizerBase) -> None:
    config = bundled_config(bundled_layout(tokenizer, CODES), BundledRecipe())
    with torch.device("meta"):
        model = UniDiffForBlockDiffusion(config)
    assert 2e6 < model.num_parameters() < 15e6  # 40 MB in bfloat16, with the image tokenizer


def test_bins_cover_the_demonstrations() -> None:
    rng = np.random.default_rng(0)
    states, actions = bins_of(
        {"states": rng.uniform(-1, 1, (50, 2)), "chunks": rng.uniform(-1, 1, (50, 8, 2))}
    )
    assert states.dim == actions.dim == 2
    assert actions.num_tokens == 16
    assert states.num_tokens == 2


@pytest.mark.parametrize("make", [BundledRecipe, drafting_recipe])
def test_the_stream_holds_every_source_in_the_recipes_proportions(
    make: Any, data_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    encoder = SequenceEncoder(tokenizer, bundled_layout(tokenizer, CODES))
    recipe = make(seed=3)
    stream = bundled_stream(data_dir, encoder, recipe, 10_000)
    assert stream.cycle_length == sum(recipe.mixture.values())
    assert stream.cycle_length % bundled.MICRO_BATCH == 0
    counts = dict.fromkeys(MIXTURE, 0)
    for item in range(stream.cycle_length):
        counts[stream.sources[stream.locate(item)[0]].source.name] += 1
    assert counts == recipe.mixture


def test_text_is_the_elbo_and_images_are_unweighted() -> None:
    objective = bundled_objective(seed=5)
    assert objective.text.elbo_weights
    assert not objective.image.elbo_weights
    assert objective.image.schedule == objective.action.schedule == "cosine"
    assert objective.seed == 5


@pytest.mark.usefixtures("small_cycle")
def test_training_returns_the_average_of_its_last_checkpoint(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = train(data_dir, tmp_path, tokenizer)
    average = load_file(tmp_path / "checkpoint-4" / AVERAGE_FILE)
    last = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "checkpoint-4")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, average[name])
    ids = torch.tensor([[2, 30, 31]])
    assert not torch.equal(model(ids).logits, last(ids).logits)


@pytest.mark.usefixtures("small_cycle")
def test_the_drafting_phase_goes_on_from_a_finished_checkpoint(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    train(data_dir, tmp_path / "first", tokenizer)
    finished = tmp_path / "first" / "checkpoint-4"
    (finished / "training_log.json").write_text(json.dumps({"step": 4, "history": []}))
    phase = drafting_recipe(**{**vars(SMALL), "mixture": MIXTURE, "steps": 6, "decay_steps": 1})
    second = tmp_path / "second"
    model = train_bundled(data_dir, second, tokenizer, LEVELS, phase, carried=finished)
    state = json.loads((second / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["max_steps"] == 2
    before = load_file(finished / "model.safetensors")
    drift = [(model.get_parameter(n) - w).abs().max() for n, w in before.items()]
    assert 0 < max(drift) < 0.05


def test_the_drafting_phase_masks_text_whole_more_often() -> None:
    phase = drafting_recipe()
    assert bundled_objective(0, phase.text_full_share).text.full_share == phase.text_full_share > 0
    assert phase.steps > BundledRecipe().steps
    assert phase.mixture["library_text"] > MIXTURE["library_text"]


def test_the_filling_phase_draws_more_scenes_and_fills_lines() -> None:
    phase, before = filling_recipe(), drafting_recipe()
    assert phase.steps > before.steps
    assert phase.mixture["scene_drawing"] > before.mixture["scene_drawing"]
    assert phase.line_share > before.line_share == 0.0
    assert phase.infill_share > before.infill_share
    assert sum(phase.mixture.values()) % bundled.MICRO_BATCH == 0


@pytest.mark.usefixtures("small_cycle")
def test_the_guiding_phase_learns_from_the_weights_that_it_goes_on_from(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    small = {**vars(SMALL), "mixture": MIXTURE, "steps": 24, "decay_steps": 1}
    phase = guiding_recipe(**small | {"guided_rows": 4, "guidance_scale": 2.0})
    with pytest.raises(ValueError, match="give --carried"):
        train_bundled(data_dir, tmp_path / "none", tokenizer, LEVELS, phase)
    train(data_dir, tmp_path / "first", tokenizer)
    finished = tmp_path / "first" / "checkpoint-4"
    (finished / "training_log.json").write_text(json.dumps({"step": 4, "history": []}))
    out = tmp_path / "second"
    train_bundled(data_dir, out, tokenizer, LEVELS, phase, carried=finished)
    history = json.loads((out / "checkpoint-20" / "trainer_state.json").read_text())["log_history"]
    terms = [line["term_nats"] for line in history if "term_nats" in line]
    assert terms
    assert min(terms) > 0.0


def test_the_settling_phase_describes_more_and_keeps_what_it_draws() -> None:
    phase, before = settling_recipe(), guiding_recipe()
    assert phase.steps > before.steps
    assert phase.mixture["garment_talk"] > before.mixture["garment_talk"]
    assert phase.guided_rows > 0
    assert phase.guidance_scale == 1.0 < before.guidance_scale
    for recipe in (phase, before):
        assert sum(recipe.mixture.values()) % bundled.MICRO_BATCH == 0


@pytest.mark.usefixtures("small_cycle")
def test_a_carried_recipe_goes_on_with_the_weights_and_the_data(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch
) -> None:
    train(data_dir, tmp_path / "first", tokenizer)
    carry(tmp_path / "first" / "checkpoint-2", tmp_path / "carried")
    firsts = []
    stream = bundled.bundled_stream
    monkeypatch.setattr(
        bundled, "bundled_stream", lambda *args: firsts.append(args[-1]) or stream(*args)
    )
    model = train(data_dir, tmp_path / "second", tokenizer, carried=tmp_path / "carried")
    assert firsts == [2 * sum(MIXTURE.values())]
    state = json.loads((tmp_path / "second" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["max_steps"] == 2  # four in all
    carried = load_file(tmp_path / "carried" / "model.safetensors")
    drift = [(model.get_parameter(n) - w).abs().max() for n, w in carried.items()]
    assert 0 < max(drift) < 0.05  # two steps away, not a fresh start


@pytest.mark.slow
@pytest.mark.usefixtures("small_cycle")
def test_an_interrupted_recipe_resumes_to_the_same_weights(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    whole = train(data_dir, tmp_path / "whole", tokenizer)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    half = tmp_path / "cut" / "checkpoint-4"  # killed while it was written
    half.mkdir()
    shutil.copy(tmp_path / "whole" / "checkpoint-4" / "model.safetensors", half)
    resumed = train(data_dir, tmp_path / "cut", tokenizer)
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, dict(resumed.named_parameters())[name])


@pytest.mark.usefixtures("small_cycle")
def test_a_recipe_without_average_returns_the_last_weights(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = train(data_dir, tmp_path, tokenizer, steps=2, average_decay=0.0)
    last = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "checkpoint-2").state_dict()
    assert all(torch.equal(weight, last[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 4), (2, 2), (4, 1)])
def test_a_step_is_one_cycle_on_any_number_of_ranks(
    world_size: int, accumulation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled.BlockTrainingArguments, "world_size", world_size)
    arguments = bundled.training_arguments(tmp_path, SMALL, 128, 32)
    assert arguments.gradient_accumulation_steps == accumulation


@pytest.mark.parametrize("world_size", [3, 8])
def test_a_number_of_ranks_that_does_not_divide_the_cycle_is_refused(
    world_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled.BlockTrainingArguments, "world_size", world_size)
    with pytest.raises(ValueError, match="use a number of processes that divides 4"):
        bundled.training_arguments(tmp_path, SMALL, 128, 32)


def test_a_recipe_whose_phases_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps"):
        BundledRecipe(steps=10, warmup_steps=5, decay_steps=6)
