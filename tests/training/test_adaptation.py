"""AR -> block diffusion: what a recipe makes of a source, resumption, LoRA, the folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerCallback

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.data.collator import BlockCollator
from unidiff.data.corpus import Corpus, tokenised
from unidiff.data.stream import Weighted
from unidiff.tokens.text import build_text_tokenizer
from unidiff.training import adaptation
from unidiff.training.adaptation import adapted_model, train_model, write_adapted
from unidiff.training.adaptation_recipes import RECIPES, AdaptationRates, AdaptationRecipe
from unidiff.training.growing_blocks import GrowingBlocks, doubling
from unidiff.training.lora import LoRAOptions

SMALL = AdaptationRates(steps=4, micro_batch=2, save_steps=2, bf16=False)
LORA = LoRAOptions(r=2, target_modules=("q_proj", "down_proj"))
LENGTH = 32


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A tiny Qwen3 checkpoint with random weights, as transformers writes it."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = build_text_tokenizer(["abc"], vocab_size=300)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer) + 4,  # spare rows, the first of which becomes the mask
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(source, tmp_path_factory) -> Any:
    """Tokenised samples: sums, and a text."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{"prompt": f"{n}+{n}=", "completion": str(2 * n)} for n in range(16)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    encoder = UniDiffProcessor.from_pretrained(source).encoder
    made = tokenised(folder / "sums.jsonl", encoder, LENGTH)
    datasets.config.HF_DATASETS_CACHE = before
    return made


def sources_of(model: Any, recipe: AdaptationRecipe, table: Any) -> list[Weighted]:
    return [Weighted(Corpus("sums", table, model.config.layout, recipe.blocks()), 4)]


def trained(
    source: Path,
    table: Any,
    run_dir: Path,
    recipe: AdaptationRecipe = RECIPES["sdar"],
    rates: AdaptationRates = SMALL,
) -> Any:
    model = adapted_model(source, recipe)
    objective = recipe.objective(rates.seed, 4 * rates.steps)
    sources = sources_of(model, recipe, table)
    return train_model(model, sources, run_dir, objective, rates, {"source": str(source)}, LENGTH)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_changes_how_the_source_is_read_and_nothing_else(name, source):
    recipe = RECIPES[name]
    before = UniDiffForBlockDiffusion.from_pretrained(source, dtype=torch.float32)
    model = adapted_model(source, recipe)
    mask = model.config.mask_token_id
    assert model.config.attention_pattern == recipe.attention_pattern
    assert model.config.logits_shift == recipe.logits_shift
    assert model.config.canvas_length == recipe.block_length
    for weight_name, weight in before.named_parameters():
        own = model.get_parameter(weight_name).detach().clone()
        if len(own) == model.config.vocab_size:
            rest = torch.arange(len(own)) != mask
            torch.testing.assert_close(own[mask], weight[rest].mean(0), rtol=1e-4, atol=1e-6)
            own[mask] = weight[mask]
        assert torch.equal(own, weight), weight_name


def test_what_is_not_autoregressive_is_refused(source, table, tmp_path):
    run = trained(source, table, tmp_path / "run", rates=replace(SMALL, steps=1))
    processor = UniDiffProcessor.from_pretrained(source)
    write_adapted(run, processor, RECIPES["sdar"].decoding, tmp_path / "made")
    with pytest.raises(ValueError, match="is not autoregressive"):
        adapted_model(tmp_path / "made", RECIPES["sdar"])


@pytest.mark.parametrize("name", sorted(RECIPES))
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_stopped_run_goes_on_to_the_same_weights(name, lora, source, table, tmp_path):
    recipe = replace(RECIPES[name], block_length=4)
    if name == "sdar":
        recipe = replace(recipe, first_block_length=1)
    rates = replace(SMALL, lora=lora)
    whole = trained(source, table, tmp_path / "whole", recipe, rates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "StepBar", lambda: StopAfter(3))
        with pytest.raises(KeyboardInterrupt):
            trained(source, table, tmp_path / "cut", recipe, rates)
    cut = trained(source, table, tmp_path / "cut", recipe, rates)
    assert [line["step"] for line in cut.history] == [line["step"] for line in whole.history]
    fresh = weights_of(adapted_model(source, recipe))
    first, second = weights_of(whole.model), weights_of(cut.model)
    assert first.keys() == second.keys() == fresh.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    changed = {key for key in first if not torch.equal(first[key], fresh[key])}
    if lora is None:
        assert changed == set(first)
    else:
        of_lora = {key for key in first if "q_proj" in key or "down_proj" in key}
        assert changed == {*of_lora, "model.embed_tokens.weight"}
        mask = whole.model.config.mask_token_id
        rows = (first["model.embed_tokens.weight"] != fresh["model.embed_tokens.weight"]).any(1)
        assert rows.nonzero().tolist() == [[mask]]


class StopAfter(TrainerCallback):
    """Ctrl-C in the middle of a run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_run_with_other_settings_is_refused(source, table, tmp_path):
    trained(source, table, tmp_path / "run", rates=replace(SMALL, steps=1))
    with pytest.raises(ValueError, match="other settings"):
        trained(source, table, tmp_path / "run", rates=replace(SMALL, steps=2))


def test_the_folder_loads_decodes_and_has_its_curves(source, table, tmp_path):
    recipe = replace(RECIPES["causal"], block_length=4)
    run = trained(source, table, tmp_path / "run", recipe)
    processor = UniDiffProcessor.from_pretrained(source)
    folder = write_adapted(run, processor, recipe.decoding, tmp_path / "made", torch.bfloat16)
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    assert (model.config.attention_pattern, model.config.logits_shift) == ("causal_context", 1)
    assert model.generation_config.unmasking_strategy == "threshold"
    prompt = torch.from_numpy(processor.encoder.text("1+1=").ids_L)[None]
    output = model.generate(prompt, max_new_tokens=8, return_dict_in_generate=True)
    assert output.sequences.shape[1] <= prompt.shape[1] + 8
    log = json.loads((folder / "training_log.json").read_text())
    assert (log["step"], log["max_steps"]) == (4, 4)
    assert (folder / "curves.png").stat().st_size > 1000


def test_a_grid_grows_by_doubling_over_the_first_half(source, table):
    objective = replace(RECIPES["sdar"], block_length=8, first_block_length=1).objective(0, 60)
    assert isinstance(objective, GrowingBlocks)
    lengths = [objective.length_at(item) for item in range(60)]
    assert lengths == [1] * 10 + [2] * 10 + [4] * 10 + [8] * 30


def test_a_stage_of_the_grid_is_that_grid(source, table):
    long = replace(RECIPES["sdar"], block_length=8)
    model = adapted_model(source, long)
    rows = sources_of(model, long, table)[0].source
    for stage, length in enumerate((2, 4, 8)):
        items = [
            {
                "row": rows.row(index, np.random.default_rng(0)),
                "key": index,
                "stream_position": 2 * stage,
            }
            for index in range(3)
        ]
        batch = BlockCollator()(items)
        growing = replace(long, first_block_length=2).objective(0, 8)
        found, _ = growing(model, batch, model.config)
        short = replace(long, block_length=length)
        model.config.canvas_length = length
        block_ids = torch.where(batch["block_ids"] < 0, -1, batch["token_index"] // length)
        cut = {**batch, "block_ids": block_ids}
        expected, _ = short.objective(0, 8)(model, cut, model.config)
        model.config.canvas_length = 8
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_pattern": "full"}, "attention_pattern must be one of"),
        ({"ar_weight": -1.0}, "ar_weight must be >= 0"),
        ({"block_length": 6, "first_block_length": 4}, "does not lead to 6"),
        (
            {"attention_pattern": "causal_context", "first_block_length": 2},
            "belongs to a grid",
        ),
    ],
)
def test_recipes_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AdaptationRecipe(**fields)
    assert doubling(3, 12) == (3, 6, 12)


def test_rates_need_steps():
    with pytest.raises(ValueError, match="steps, micro_batch, save_steps >= 1"):
        AdaptationRates(steps=0)
