"""pytest plugins/vla/tests/commands/test_record_dagger.py: an expert corrects a policy."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result
from unidiff_vla.commands import record as command
from unidiff_vla.environments.tabletop_env import TabletopEnv
from unidiff_vla.lerobot_dataset import STATE, LeRobotFolder
from unidiff_vla.recording import leads

from unidiff.bundled import bundled_checkpoint
from unidiff.cli.app import app


def record(*line: object) -> Result:
    """Result of `unidiff record` on the table."""
    return CliRunner().invoke(app, ["record", *map(str, line)])


def first_states(folder: LeRobotFolder) -> list[np.ndarray]:
    """State of each episode's first frame."""
    return [episode.frames[STATE][0] for episode in folder]


def beginning(seed: int) -> np.ndarray:
    """State at the beginning of a layout."""
    seen, _ = TabletopEnv("push", "train").reset(seed=seed)
    return np.asarray(seen["state"])


def test_the_checkpoint_drives_first_and_the_expert_is_recorded(tmp_path: Path) -> None:
    out, weights = tmp_path / "corrections", bundled_checkpoint()
    line = ("tabletop-push=2", "--first-seed", 5, "--dagger", weights, "--dagger-steps", 4)
    result = record(*line, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    (report,) = json.loads(result.stdout)["environments"]
    assert (report["num_kept"], report["num_failed"], report["num_skipped"]) == (2, 0, 0)
    folder = LeRobotFolder(out)
    settings = folder.info["unidiff"]["settings"]
    assert (settings["dagger"], settings["dagger_steps"]) == (str(weights), 4)
    for seed, state in zip((5, 6), first_states(folder), strict=True):
        away = np.linalg.norm(state - beginning(seed))
        assert 0.02 < away < 4 * 0.07 * np.sqrt(2) + 1e-4  # a few steps of at most 7 % of the table


def test_what_the_checkpoint_does_alone_is_passed_over_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four layouts the policy does those with even seeds, and keeps still in the others."""
    asked: list[Any] = []

    class Still:
        """Keeps still."""

        num_executed, last_record = 4, None
        processor = SimpleNamespace(state_bins=object())
        settings = SimpleNamespace(cameras=None, foresees=False)

        def predict_action_chunk(self, observations: Any, *, seed: Any) -> np.ndarray:
            asked.append(tuple(observations[0]["state"]))
            return np.zeros((1, 4, 2), dtype=np.float32)

    def carried_out(env: Any, actions: np.ndarray) -> tuple[Any, bool]:
        if env.seed % 2 == 0:
            return env.observe(), True  # over: done alone
        return original(env, actions)

    original = leads.carried_out
    monkeypatch.setattr(leads, "carried_out", carried_out)
    given: list[Any] = []

    def policy_for(env: str, choice: Any) -> Any:
        given.append((env, choice.checkpoint))
        return SimpleNamespace(policy=Still())

    monkeypatch.setattr(command, "policy_for", policy_for)
    # Longer than an episode of the table (64 steps): the expert has its own steps behind these.
    line = ("tabletop-push=2", "--dagger", "weights", "--dagger-steps", 120)
    result = record(*line, "--out", tmp_path / "corrections")
    assert result.exit_code == 0, result.stderr
    assert given == [("tabletop-push", Path("weights"))]
    assert "2 demonstrations" in result.stdout
    assert "0 attempts failed, 2 needed no expert" in result.stdout
    states = first_states(LeRobotFolder(tmp_path / "corrections"))
    for seed, state in zip((1, 3), states, strict=True):
        np.testing.assert_array_equal(state, beginning(seed))  # it kept still
    assert len(asked) > 2 * 60 // 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--wander", 5), "give --wander or --dagger, not both"),
        (("--dagger-steps", 0), "--dagger-steps"),
        (("--dagger", "absent"), "absent"),
    ],
)
def test_bad_input_is_said(more: tuple[object, ...], words: str, tmp_path: Path) -> None:
    line = ("tabletop-push", "--dagger", bundled_checkpoint(), "--out", tmp_path / "demos", *more)
    result = record(*line)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "demos").exists()
