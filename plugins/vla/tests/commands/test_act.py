"""pytest plugins/vla/tests/commands: `unidiff act` on the table and on environments of others."""

import json
from types import SimpleNamespace

import gymnasium
import pytest
from PIL import Image
from typer.testing import CliRunner
from unidiff_vla.commands import act as command
from unidiff_vla.environments.tabletop_env import TabletopEnv
from unidiff_vla.loading import default_checkpoint, policy_for
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings

from unidiff.bundled import bundled_checkpoint
from unidiff.cli.app import app
from unidiff.cli.options import ModelChoice

from ..toy_gym import Corridor


@pytest.fixture(scope="module")
def loaded():
    """The bundled checkpoint, loaded once."""
    return policy_for("tabletop-push", ModelChoice())


@pytest.fixture
def run(loaded, monkeypatch):
    """Runs `unidiff act`; the weights are those already loaded."""

    def load(env, choice, change):
        default_checkpoint(command.find_environment(env)) if choice.checkpoint is None else None
        settings = change(PolicySettings())
        parts = (loaded.policy.model, loaded.policy.processor)
        return SimpleNamespace(policy=MaskedDiffusionPolicy(*parts, settings), folder=loaded.folder)

    monkeypatch.setattr(command, "policy_for", load)

    def act(*line):
        result = CliRunner().invoke(app, ["act", *map(str, line)])
        is_report = "--json" in line and result.stdout.startswith("{")
        return SimpleNamespace(
            code=result.exit_code,
            out=result.stdout,
            err=result.stderr,
            report=json.loads(result.stdout) if is_report else None,
        )

    return act


def test_episodes_are_driven_filmed_and_reported(run, tmp_path):
    film = tmp_path / "films" / "reach.gif"
    line = ("--env", "tabletop-reach", "--episodes", 2, "--seed", 3, "--steps", 1)
    report = run(*line, "--video", film, "--json").report
    assert report["num_episodes"] == 2
    assert [one["seed"] for one in report["episodes"]] == [3, 4]
    for one in report["episodes"]:
        assert 1 <= one["num_steps"] <= 40
        assert one["num_forwards"] == one["num_plans"] == -(-one["num_steps"] // 8)
    assert report["video"] == str(film)
    shown = Image.open(film)
    longest = max(one["num_steps"] for one in report["episodes"])
    assert 1 < shown.n_frames <= longest + 1
    assert shown.width > 2 * 288


def test_what_is_foreseen_is_filmed_beside_what_came(run, tmp_path):
    line = ("--env", "tabletop-reach", "--steps", 2)
    shapes = []
    for name, more in (("plain.gif", ()), ("foreseen.gif", ("--foresee",))):
        assert run(*line, *more, "--video", tmp_path / name).code == 0
        shapes.append(Image.open(tmp_path / name).size)
    (width, height), (wide, low) = shapes
    assert wide / low > 1.4 * width / height  # two pictures side by side


def test_it_is_a_line_for_people(run):
    result = run("--env", "tabletop-reach", "--task", "touch the red disc", "--steps", 1)
    assert result.code == 0
    assert "0: touch the red disc: " in result.out


def test_replanning_more_often_asks_more_often(run):
    line = ("--env", "tabletop-reach", "--steps", 1, "--json", "--replan-every")
    for every in (8, 3):
        (one,) = run(*line, every).report["episodes"]
        assert one["num_plans"] == -(-one["num_steps"] // every)


def test_wordings_are_told(run):
    line = ("--env", "tabletop-reach", "--steps", 1, "--json", "--wording")
    known, swapped = (run(*line, one).report["episodes"][0] for one in ("known", "swapped"))
    assert known["instruction"] != swapped["instruction"]
    assert known["instruction"].split()[:2] == swapped["instruction"].split()[:2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--env", "juggling"), "juggling"),
        (("--seed", -1), "--seed"),
        (("--video", "film.mp4"), ".gif"),
        (("--split", "validation"), "--split"),
        (("--wording", "loud"), "--wording"),
        (("--task", "go", "--wording", "swapped"), "--task"),
        (("--replan-every", 9), "replan_every must lie in [1, 8]"),
        (("--env", "pusht"), "no weights for pusht"),
        (("--env", "other:Name-v0", "--wording", "swapped"), "knows no wordings"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, line, words):
    result = run(*line)
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_weights_that_do_not_ship_are_asked_for(run, monkeypatch, tmp_path):
    monkeypatch.setattr("unidiff_vla.loading.METAWORLD_CHECKPOINT", tmp_path / "absent")
    result = run("--env", "metaworld-reach")
    assert result.code == 2
    assert "no weights for metaworld-reach come with this version: give --checkpoint" in result.err


def test_a_checkpoint_for_another_robot_is_refused(run, monkeypatch):
    monkeypatch.setattr(Corridor, "action_space", gymnasium.spaces.Box(-1.0, 1.0, (4,)))
    gymnasium.register("toy/Wide-v0", entry_point=Corridor)
    result = run("--env", "toy/Wide-v0", "--checkpoint", bundled_checkpoint())
    assert result.code == 2
    assert "has 4 dimensions and the checkpoint plans 2" in result.err


def test_an_episode_that_breaks_off_leaves_the_others(run, tmp_path):
    gymnasium.register("toy/Broken-v0", entry_point=Corridor, kwargs={"breaks_at": 4})
    line = ("--env", "toy/Broken-v0", "--checkpoint", bundled_checkpoint(), "--steps", 1)
    result = run(*line, "--episodes", 2, "--video", tmp_path / "f.gif", "--json")
    assert result.code == 2
    sound, broken = result.report["episodes"]
    assert sound["error"] is None
    assert broken["error"] == "step 4: RuntimeError: a joint is stuck"
    assert "1 of 2 episodes broke off: layout 1, step 4" in result.err
    assert (tmp_path / "f.gif").is_file()


def test_an_interruption_leaves_what_was_filmed(run, monkeypatch, tmp_path):
    original = TabletopEnv.step

    def step(self, action):
        if self._num_steps == 5:
            raise KeyboardInterrupt
        return original(self, action)

    monkeypatch.setattr(TabletopEnv, "step", step)
    film = tmp_path / "film.gif"
    result = run("--env", "tabletop-push", "--steps", 1, "--video", film)
    assert result.code == 130
    assert 1 < Image.open(film).n_frames <= 6


def test_without_a_film_a_chunk_has_one_picture(run, monkeypatch):
    pictures = []
    original = TabletopEnv._picture
    monkeypatch.setattr(TabletopEnv, "_picture", lambda s, c: pictures.append(c) or original(s, c))
    (one,) = run("--steps", 1, "--json").report["episodes"]
    assert len(pictures) == one["num_plans"] + 1


def test_a_checkpoint_without_actions_says_so(loaded, monkeypatch):
    monkeypatch.setattr(loaded.policy.processor, "action_bins", None)
    with pytest.raises(ValueError, match="no action_bins"):
        MaskedDiffusionPolicy(loaded.policy.model, loaded.policy.processor)


def test_settings_of_a_single_robot_are_named_where_they_are_ignored(caplog):
    policy_for("tabletop-push", ModelChoice(), lambda one: PolicySettings(ensemble_decay=0.1))
    assert "ensemble_decay" in caplog.text
