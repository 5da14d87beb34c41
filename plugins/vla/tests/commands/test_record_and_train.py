"""pytest plugins/vla/tests/commands: from an expert to a policy of one's own, by two commands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from unidiff_vla.environments.tabletop_env import TabletopEnv
from unidiff_vla.lerobot_dataset import DatasetWriter, LeRobotFolder
from unidiff_vla.policy import MaskedDiffusionPolicy
from unidiff_vla.recording import recorder

from unidiff.cli.app import app
from unidiff.data.sources.tabletop import TabletopEnv as Table


def invoke(*line: object) -> Result:
    """Result of a command line."""
    return CliRunner().invoke(app, [str(part) for part in line])


def test_two_commands_make_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep, made = recorder._keep, []

    def interrupted(*arguments: object) -> None:
        if len(made) == 3:
            made.append(0)
            raise KeyboardInterrupt
        made.append(1)
        keep(*arguments)

    monkeypatch.setattr(recorder, "_keep", interrupted)
    envs = ("tabletop-reach=1", "tabletop-push")
    line = ("record", *envs, "--episodes", 3, "--wander", 9, "--out", tmp_path / "demos", "--json")
    assert invoke(*line).exit_code == 130
    assert not (tmp_path / "demos").exists()
    result = invoke(*line)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [one["num_kept"] for one in report["environments"]] == [1, 3]
    assert sum(made) == 4  # those made before the interruption were kept
    folder = LeRobotFolder(tmp_path / "demos")
    assert len(folder) == 4
    assert folder.info["unidiff"]["settings"]["wander"] == 9
    assert folder.info["fps"] == TabletopEnv.metadata["render_fps"] == 10

    sizes = ("--steps", 2, "--batch-size", 2, "--tokenizer-steps", 2, "--num-layers", 1)
    sizes = (*sizes, "--waypoints", "4, 9", "--num-turns", 1, "--future-share", 0.5)
    sizes = (*sizes, "--tokenizer-widths", "8,16", "--num-action-bins", 32)
    result = invoke(
        *("train-policy", *[tmp_path / "demos"] * 2, "--out", tmp_path / "run", *sizes),
        "--no-compile-layers",
    )
    assert result.exit_code == 0, result.stderr
    assert f"{2 * folder.num_frames} frames of" in result.stderr
    log = json.loads((tmp_path / "run" / "policy" / "training_log.json").read_text())
    assert log["recipe"]["waypoints"] == [4, 9]
    assert log["recipe"]["num_turns"] == 1
    assert log["recipe"]["tokenizer_widths"] == [8, 16]
    assert log["recipe"]["num_action_bins"] == 32
    assert log["recipe"]["future_share"] == 0.5
    policy = MaskedDiffusionPolicy.from_pretrained(tmp_path / "run" / "policy")
    seen, _ = Table("reach").reset(seed=1_000_000)
    assert policy.predict_action_chunk(seen).shape == (1, 8, 2)

    assert invoke("record", "tabletop-push=1", "--out", tmp_path / "others").exit_code == 0
    result = invoke("train-policy", tmp_path / "others", "--out", tmp_path / "run", *sizes)
    assert result.exit_code == 2
    assert "the codes of other data sets than" in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", ["tabletop-push=", "tabletop-push=0", "tabletop-push=many"])
def test_a_number_of_episodes_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    result = invoke("record", name, "--out", tmp_path / "demos")
    assert result.exit_code == 2
    assert "whole number N >= 1" in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        ("tabletop-push=2",),
        ("tabletop-push=3", "--first-seed", 1),
        ("tabletop-reach=3", "tabletop-push=2"),
    ],
)
def test_what_an_earlier_run_recorded_is_not_mixed_in(
    line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(writer: DatasetWriter) -> None:
        raise KeyboardInterrupt

    out = ("--out", tmp_path / "demos")
    with monkeypatch.context() as patch:
        patch.setattr(DatasetWriter, "finish", interrupted)
        assert invoke("record", "tabletop-push=3", *out).exit_code == 130
    result = invoke("record", *line, *out)
    assert result.exit_code == 2
    assert "{'tabletop-push': 3} demonstrations of an earlier run" in " ".join(
        result.stderr.split()
    )
    assert invoke("record", "tabletop-push=4", *out).exit_code == 0
    assert len(LeRobotFolder(tmp_path / "demos")) == 4


def test_an_environment_named_twice_is_refused(tmp_path: Path) -> None:
    result = invoke("record", "tabletop-reach", "tabletop-reach=3", "--out", tmp_path / "demos")
    assert result.exit_code == 2
    assert "each environment once" in result.stderr


def test_environments_without_experts_are_refused(tmp_path: Path) -> None:
    result = invoke("record", "CartPole-v1", "--out", tmp_path / "demos")
    assert result.exit_code == 2
    assert "have experts; got ['CartPole-v1']" in result.stderr


@pytest.mark.parametrize("option", ["--waypoints", "--tokenizer-widths"])
def test_lists_that_are_no_numbers_are_refused(option: str, tmp_path: Path) -> None:
    result = invoke("train-policy", tmp_path, "--out", tmp_path / "run", option, "8,soon")
    assert result.exit_code == 2
    assert f"{option} must be whole numbers as 8,24" in result.stderr


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    result = invoke("train-policy", tmp_path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "meta/info.json" in result.stderr


def test_adding_wants_codes_to_add_to(tmp_path: Path) -> None:
    result = invoke("train-policy", tmp_path, "--out", tmp_path / "run", "--add")
    assert result.exit_code == 2
    assert "got 1 of them, and the file is missing" in " ".join(result.stderr.split())
