"""The film of episodes, and what an episode of the demonstration costs."""

import numpy as np
import pytest
from PIL import Image

from unidiff.cli.episode import Played, write_gif
from unidiff.cli.film import FilmedEpisode, check_film, write_film
from unidiff.cli.session import Answer
from unidiff.data.sources.tabletop import TabletopEnv
from unidiff.data.sources.tabletop_expert import expert_policy
from unidiff.data.sources.tabletop_rollout import evaluation_seeds, rollout


def expert_episode(task):
    env = TabletopEnv(task)
    seed = evaluation_seeds(1)[0]
    answers = (Answer(None, 4, 4.0, 0.5, "canvas", 0), Answer(None, 2, 8.0, 0.5, "canvas", 0))
    return Played(task, seed, rollout(expert_policy(env), seed, task, env=env), answers)


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


def drawn(tmp_path, episodes):
    write_film(tmp_path / "film.gif", episodes)
    return Image.open(tmp_path / "film.gif")


def test_many_episodes_stand_in_rows_and_are_smaller(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    one = FilmedEpisode(frames, [0, 1], "go", "done", True)
    single, five = drawn(tmp_path, [one]).size, drawn(tmp_path, [one] * 5).size
    assert five[0] <= 1240
    assert five[1] > 1.5 * single[1] > 256


def test_long_words_are_cut_to_the_picture(tmp_path):
    frame = np.full((1, 64, 64, 3), 200, np.uint8)
    words = FilmedEpisode(frame, [0], "push " * 60, "not reached " * 30, False)
    shown = np.asarray(drawn(tmp_path, [words]).convert("L")).astype(int)
    strip = shown[10 + 256 : -10]
    assert (strip[:, 10 : 10 + 240] < 120).any()
    assert (strip[:, 10 + 256 :] > 200).all()


def test_a_film_that_cannot_be_written_is_refused_before_anything_is_driven(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.gif").mkdir()
    for name, words in (
        ("film.mp4", "must end in .gif"),
        ("folder.gif", "is a folder"),
        ("file/film.gif", "is no folder"),
        ("file/in/film.gif", "is no folder"),
    ):
        with pytest.raises(ValueError, match=words):
            check_film(tmp_path / name)
    check_film(tmp_path / "new" / "film.gif")
    assert (tmp_path / "new").is_dir()


def test_a_film_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a film needs"):
        write_film(tmp_path / "film.gif", [])
