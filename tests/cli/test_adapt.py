"""`unidiff adapt` and `unidiff bench adapt`."""

import json
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM

from unidiff import UniDiffForBlockDiffusion
from unidiff.bundled import bundled_checkpoint
from unidiff.training.adaptation_experiment import AdaptationExperiment, source_config

SMALL = ("--steps", 2, "--save-steps", 1, "--micro-batch", 2, "--length", 16, "--no-bf16")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A tiny Qwen3 with random weights."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = AutoTokenizer.from_pretrained(bundled_checkpoint())
    torch.manual_seed(0)
    sizes = AdaptationExperiment(hidden_size=32, num_layers=1, intermediate_size=32)
    Qwen3ForCausalLM(source_config(sizes, len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(8)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "sums.jsonl"


@pytest.mark.parametrize("more", [(), ("--lora", "r=2,targets=q_proj")], ids=["full", "lora"])
def test_adapt_makes_a_checkpoint_with_the_recipe_changed(
    run_command, source, data, tmp_path, more
):
    target = tmp_path / "made"
    line = ("adapt", source, target, "--data", data, "--recipe", "fast-dllm", *SMALL, *more)
    changed = ("--block-length", 8, "--first-block-length", 2, "--samples", 4)
    done = run_command(*line, *changed, checkpoint=None)
    assert done.code == 0, (done.err, done.exception)
    assert done.out.strip() == str(target)
    model = UniDiffForBlockDiffusion.from_pretrained(target)
    assert (model.config.attention_pattern, model.config.logits_shift) == ("block_causal", 1)
    assert model.config.canvas_length == 8
    settings = json.loads((tmp_path / "made.run" / "adapt.json").read_text())
    assert settings["recipe"]["complementary"] is True
    assert settings["recipe"]["first_block_length"] == 2
    assert settings["data"] == [[str(data), 8, 4]]
    again = run_command(*line, checkpoint=None)
    assert again.code == 2
    assert "is there already" in again.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--recipe", "other"), "--recipe must be one of"),
        (("--length", 18), "--length must be a multiple of the block length 4"),
        (("--samples", 4, "--samples", 4), "--samples must be given once for each --data"),
        (("--dtype", "int8"), "--dtype must be one of"),
    ],
)
def test_what_does_not_fit_is_refused(run_command, source, data, tmp_path, more, message):
    line = ("adapt", source, tmp_path / "made", "--data", data, *SMALL, *more)
    done = run_command(*line, checkpoint=None)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_the_benchmark_runs_through_and_goes_on(run_command, tmp_path):
    sizes = ("--hidden-size", 32, "--num-layers", 1, "--intermediate-size", 32, "--num-sums", 50)
    line = ("bench", "adapt", "--out", tmp_path, *sizes, "--sums", 4, "--windows", 4, "--json")
    line = (*line, "--length", 16, "--max-documents", 2, "--source-steps", 2, "--steps", 2)
    line = (*line, "--micro-batch", 4, "--measured-sums", 4, "--measured-windows", 2)
    first = run_command(*line, checkpoint=None)
    assert first.code == 0, (first.err, first.exception)
    assert set(first.report["aims"].values()) <= {True, False}
    assert first.report["adapted"]["threshold"] in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    assert (tmp_path / "adapt.png").stat().st_size > 1000
    theirs = Qwen3ForCausalLM.from_pretrained(tmp_path / "source", dtype=torch.float32)
    ours = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "source", dtype=torch.float32)
    ids = torch.arange(20, 30)[None]
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids).logits[..., :2048], expected, rtol=1e-4, atol=1e-4)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    second = run_command(*line, checkpoint=None)
    assert second.report["adapted"] == first.report["adapted"]
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
