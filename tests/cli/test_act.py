"""`unidiff act`, and the film of an episode."""

import numpy as np
import pytest
from PIL import Image

from unidiff.cli.episode import Played, write_gif
from unidiff.cli.session import Answer
from unidiff.data.sources.tabletop import TabletopEnv
from unidiff.data.sources.tabletop_expert import expert_policy
from unidiff.data.sources.tabletop_rollout import evaluation_seeds, rollout


def expert_episode(task):
    env = TabletopEnv(task)
    seed = evaluation_seeds(1)[0]
    answers = (Answer(None, 4, 4.0, 0.5, "canvas", 0), Answer(None, 2, 8.0, 0.5, "canvas", 0))
    return Played(task, seed, rollout(expert_policy(env), seed, task, env=env), answers)


def test_act_drives_one_episode_and_reports_it(run_command, tmp_path):
    gif = tmp_path / "films" / "o.gif"
    line = ("act", "--task", "reach", "--seed", 3, "--steps", 1, "--gif", gif, "--json")
    report = run_command(*line).report
    assert report["task"] == "reach"
    assert 1 <= report["steps"] <= 40
    assert report["num_forwards"] == report["plans"]
    assert report["tokens_per_forward"] == 16.0
    assert Image.open(gif).n_frames > 1


def test_the_robot_is_told_the_given_instruction(run_command):
    line = ("act", "--task", "reach", "--instruction", "touch the red disc", "--steps", 1)
    assert run_command(*line, "--json").report["instruction"] == "touch the red disc"


def test_replanning_more_often_asks_more_often(run_command):
    line = ("act", "--task", "reach", "--steps", 1, "--json", "--replan-every")
    seldom, often = (run_command(*line, every).report for every in (8, 4))
    assert seldom["plans"] == -(-seldom["steps"] // 8)
    assert often["plans"] == -(-often["steps"] // 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "juggle"), "juggle"),
        (("--seed", -1), "--seed"),
        (("--gif", "film.mp4"), ".gif"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run_command, options, words):
    result = run_command("act", *options)
    assert result.code == 2
    assert words in result.err


def test_cost_of_an_episode_is_that_of_its_plans():
    played = expert_episode("reach")
    assert played.num_forwards == 6
    assert played.tokens_per_forward == pytest.approx((16 + 16) / 6)
    assert played.seconds == 1.0


def test_the_film_shows_every_frame_and_waits_for_the_longer_episode(tmp_path):
    episodes = [expert_episode("reach"), expert_episode("push")]
    write_gif(tmp_path / "film.gif", episodes)
    film = Image.open(tmp_path / "film.gif")
    assert film.n_frames <= max(len(one.episode.frames) for one in episodes)
    assert film.n_frames > min(len(one.episode.frames) for one in episodes)
    assert film.size[0] > 2 * 288
    film.seek(film.n_frames - 1)
    shown = np.asarray(film.convert("RGB"))
    goal = episodes[0].episode.frames[-1][16, 16].astype(int)
    assert np.abs(shown[10 + 16 * 9 + 4, 10 + 16 * 9 + 4].astype(int) - goal).max() < 40
