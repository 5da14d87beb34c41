"""`unidiff bench quality` on a tiny model with random weights, and the defaults it confirms."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from unidiff.cli import samplers
from unidiff.cli.options import Decoding
from unidiff.data.sources.garments import DEFAULT_ROOT
from unidiff.evaluation.suite import load_suite
from unidiff.evaluation.tradeoff import DEFAULT, REFERENCE
from unidiff.generation.config import UniDiffGenerationConfig

needs_photographs = pytest.mark.skipif(
    not DEFAULT_ROOT.exists(), reason="dataset-fashion-mnist missing"
)
LINE = ("bench", "quality", "--confirm", "--limit", 2, "--task", "captions", "--task", "infilling")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quality")


@needs_photographs
def test_a_run_writes_a_report_a_table_and_a_plot_and_goes_on_where_it_stopped(run_command, folder):
    first = run_command(*LINE, "--out", folder, "--json")
    assert first.code == 0, first.err
    rows = first.report["rows"]
    assert [(row["task"], row["label"]) for row in rows] == [
        ("captions", REFERENCE),
        ("captions", DEFAULT),
        ("infilling", REFERENCE),
        ("infilling", DEFAULT),
    ]
    for row in rows:
        assert row["num_inputs"] == 2
        assert row["seed"] == 0
        assert row["sampler"]["unmasking_strategy"]
        assert len(row["checkpoint"]) == 12
    assert json.loads((folder / "quality.json").read_text()) == first.report
    assert "### captions: 2 inputs" in (folder / "quality.md").read_text()
    assert Image.open(folder / "quality.png").width > 300
    assert len(list((folder / "cells").iterdir())) == 4
    again = run_command(*LINE, "--out", folder, "--json")
    assert again.report["rows"] == rows
    assert again.err.count("(known)") == 4


@pytest.mark.parametrize(
    ("options", "words"), [(("--task", "poetry"), "tasks must be among"), (("--limit", 0), "limit")]
)
def test_an_impossible_run_is_exit_code_2(run_command, tmp_path, options, words):
    result = run_command("bench", "quality", *options, "--out", tmp_path / "new")
    assert result.code == 2
    assert words in result.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "group"), [(samplers.TEXT, "completion"), (samplers.TEXT_HOLES, "infilling")]
)
def test_commands_write_text_as_the_suite_measures_it(options, group):
    sampler = load_suite("bundled")[group]["sampler"]
    own = {name: value for name, value in options.items() if name != "max_new_tokens"}
    assert own == {name: sampler[name] for name in own}
    assert set(sampler) - set(own) <= {"batch_size", "do_sample", "max_new_tokens"}


def test_a_threshold_alone_asks_for_the_strategy_that_reads_it():
    defaults = {"unmasking_strategy": "cosine"}
    assert Decoding(threshold=0.5).over(defaults)["unmasking_strategy"] == "threshold"
    assert Decoding(threshold=0.5, strategy="dynamic").over({})["unmasking_strategy"] == "dynamic"
    assert Decoding().over(defaults)["unmasking_strategy"] == "cosine"


def test_long_holes_are_filled_at_the_pace_of_short_ones():
    def steps(*wanted):
        pinned = torch.ones(len(wanted), 40, dtype=torch.bool)
        for row, number in enumerate(wanted):
            pinned[row, :number] = False
        inputs = {"pinned_mask": pinned, "canvas_modality_ids": torch.zeros(len(wanted), 40)}
        return samplers.filling(inputs)["max_denoising_steps"]

    assert (steps(1), steps(12), steps(13), steps(3, 30)) == (3, 3, 6, 9)


def test_weights_with_a_trained_grid_keep_their_blocks():
    free, gridded = (SimpleNamespace(attention_pattern=p) for p in ("full", "block_causal"))
    unsaid = UniDiffGenerationConfig()
    models = [SimpleNamespace(config=one, generation_config=unsaid) for one in (free, gridded)]
    assert samplers.completing(models[0])["block_length"] == 20
    assert "block_length" not in samplers.completing(models[1])
    models[0].generation_config = UniDiffGenerationConfig(decoding_mode="ar")
    assert set(samplers.completing(models[0])) == {"max_new_tokens"}
