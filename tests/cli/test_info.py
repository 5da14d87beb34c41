"""`unidiff info`, `--version`, `--help`, and how options reach commands."""

import subprocess
import sys
from shutil import copytree
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import unidiff
from unidiff.cli.options import Decoding, takes_options

COMMANDS = (
    *("demo", "generate", "chat", "trace"),
    *("prepare", "train", "eval", "info"),
)


def test_info_tells_versions_and_facts(run_command, tiny_checkpoint):
    report = run_command("info", "--json").report
    assert report["versions"]["unidiff"] == unidiff.__version__
    facts = report["checkpoint"]
    assert facts["folder"] == str(tiny_checkpoint)
    assert facts["attention pattern"] == "causal_context"
    assert facts["ids"]["text"] == [0, 2048]
    assert "240 codes" in facts["image tokenizer"]
    model = unidiff.UniDiffForBlockDiffusion.from_pretrained(tiny_checkpoint)
    assert facts["parameters"] == model.num_parameters()


def test_a_checkpoint_in_shards_is_one(run_command, tiny_checkpoint, tmp_path):
    whole = run_command("info", "--json").report["checkpoint"]
    folder = tmp_path / "shards"
    copytree(tiny_checkpoint, folder)
    (folder / "model.safetensors").unlink()
    model = unidiff.UniDiffForBlockDiffusion.from_pretrained(tiny_checkpoint)
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    facts = run_command("info", "--json", checkpoint=folder).report["checkpoint"]
    assert facts == {**whole, "folder": str(folder)}
    options = ("Hello", "--max-new-tokens", 8, "--json")
    expected, found = (
        run_command("generate", *options, checkpoint=one).report
        for one in (tiny_checkpoint, folder)
    )
    assert found["output"] == expected["output"]
    next(folder.glob("model-*.safetensors")).unlink()
    assert "is missing" in run_command("info", checkpoint=folder).err


def test_info_is_a_table_for_people(run_command):
    result = run_command("info")
    assert result.code == 0
    assert "attention pattern" in result.out


def test_info_without_a_checkpoint_says_what_to_do(run_command, monkeypatch, tmp_path):
    monkeypatch.setattr("unidiff.bundled.CHECKPOINT_FOLDER", str(tmp_path))
    result = run_command("info", checkpoint=None)
    assert result.code == 2
    assert "unidiff train" in result.err


def test_version_is_printed(run_command):
    assert run_command("--version", checkpoint=None).out.strip() == f"unidiff {unidiff.__version__}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run_command, command):
    result = run_command(command, "--help", checkpoint=None)
    assert result.code == 0
    assert "--help" in result.out


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "unidiff", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(name in result.stdout for name in COMMANDS)


def test_fields_of_an_options_class_become_options():
    seen = []
    app = typer.Typer()

    @app.command()
    @takes_options
    def command(name: Annotated[str, typer.Argument()], decoding: Decoding) -> None:
        seen.append((name, decoding))

    result = CliRunner().invoke(app, ["x", "--steps", "3", "--seed", "7"])
    assert result.exit_code == 0, result.output
    assert seen == [("x", Decoding(steps=3, seed=7))]


def test_given_options_win_over_the_tasks_own():
    defaults = {"max_denoising_steps": 16, "do_sample": True, "temperature": 1.0}
    assert Decoding().over(defaults) == {**defaults, "seed": 0}
    given = Decoding(steps=2, temperature=0.0).over(defaults)
    assert given["max_denoising_steps"] == 2
    assert given["do_sample"] is False
