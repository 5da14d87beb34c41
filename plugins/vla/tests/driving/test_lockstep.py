"""pytest plugins/vla/tests/driving: episodes side by side are as alone; errors stay alone."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from unidiff_vla.driving import Drive, EpisodeRecord, Film, View, drive
from unidiff_vla.driving.lockstep import plan_key
from unidiff_vla.environments.tabletop_env import TabletopEnv
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings

from unidiff.bundled import bundled_checkpoint

from ..toy_gym import Corridor


class Dice:
    """Walks ahead by what the key says; remembers what it was asked."""

    num_executed, last_record = 3, None

    def __init__(self):
        self.asked = []

    def predict_action_chunk(self, observations, *, seed):
        assert len(seed) == len(observations)
        self.asked.append(len(observations))
        self.seen = observations
        rows = [np.random.default_rng(key % 2**32).uniform(0.2, 1.0, (4, 2)) for key in seed]
        return np.stack(rows)


def corridors(number, **settings):
    return [Corridor(**settings) for _ in range(number)]


def facts(runs):
    return [(run.seed, run.success, run.num_steps, run.num_plans, run.error) for run in runs]


def test_an_episode_does_not_depend_on_its_mates():
    seeds = [4, 9, 2, 7, 1]
    together, one_by_one = Dice(), Dice()
    runs = drive(together, corridors(3), seeds)
    assert facts(runs) == facts(drive(one_by_one, corridors(1), seeds))
    assert [run.seed for run in runs] == seeds
    assert max(together.asked) == 3
    assert set(one_by_one.asked) == {1}
    assert len({run.num_steps for run in runs}) > 1
    alone = drive(Dice(), corridors(1), [7])
    assert facts(alone) == [one for one in facts(runs) if one[0] == 7]
    assert facts(drive(Dice(), corridors(3), seeds, Drive(seed=1))) != facts(runs)


def test_keys_differ_by_seed_episode_and_plan():
    keys = {plan_key(*one) for one in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]}
    assert len(keys) == 5


def test_a_free_environment_takes_the_next_episode():
    policy = Dice()
    envs = corridors(2)
    drive(policy, envs, range(6))
    assert policy.asked.count(2) > policy.asked.count(1)
    assert all(env.executed for env in envs)


def test_an_environment_that_raises_ends_its_own_episode_alone():
    runs = drive(Dice(), corridors(2, breaks_at=5), [0, 1, 2, 3])
    assert [run.success for run in runs] == [True, False, True, False]
    assert runs[1].error == "step 5: RuntimeError: a joint is stuck"
    assert runs[1].num_steps == 4
    assert runs[1].num_plans == 2
    record = runs[1].record()
    assert record == EpisodeRecord(**record.to_dict() | {"seconds": record.seconds})
    assert runs[3].error
    assert not runs[0].error


class Seer(Dice):
    """Foresees a picture of one grey, another one with every plan."""

    def predict_action_chunk(self, observations, *, seed):
        chunks = super().predict_action_chunk(observations, seed=seed)
        grey = np.full((8, 8, 3), 10 * len(self.asked), dtype=np.uint8)
        futures = [Image.fromarray(grey)] * len(seed)
        self.last_record = SimpleNamespace(num_forwards=[1] * len(seed), futures=futures)
        return chunks


def test_a_film_shows_what_is_foreseen_beside_what_came():
    view = View(foresees=True)
    (run,) = drive(Seer(), corridors(1), [4], Drive(view, num_filmed=1))
    size = run.film.frames[0].shape[1] // 2
    (plain,) = drive(Dice(), corridors(1), [4], Drive(num_filmed=1))
    assert len(run.film.frames) == len(plain.film.frames) > 4
    for step, frame, alone in zip(run.film.steps, run.film.frames, plain.film.frames, strict=True):
        assert np.array_equal(frame[:, :size], alone)
        plan = (step + 2) // 3  # three actions of each chunk are carried out
        assert (frame[:, size:] == (10 * plan if plan else 255)).all()


class TwoViews(Corridor):
    """A corridor seen from the side, dark, and from the front, bright."""

    def observe(self):
        seen = super().observe()
        seen["image"]["front"] = 100 + seen["image"]["side"]
        return seen


def test_a_film_shows_the_camera_whose_picture_is_foreseen():
    """The environment has another order of cameras than the policy."""
    for first, second, shade in (("front", "side", 140), ("side", "front", 40)):
        how = Drive(View((first, second), foresees=True), num_filmed=1)
        (run,) = drive(Seer(), [TwoViews(cameras=("side", "front"))], [4], how)
        size = run.film.frames[0].shape[1] // 2
        for step, frame in zip(run.film.steps, run.film.frames, strict=True):
            assert (frame[:, :size] == shade + step).all()


def test_a_state_that_is_not_finite_ends_the_episode_before_it_is_planned_for():
    runs = drive(Dice(), corridors(2, nan_at=3), [0, 1])
    assert runs[0].success
    assert runs[1].error.startswith("step 3: ValueError: state must be finite")


class Choosy(Dice):
    """Refuses what it is shown at the fourth step of odd layouts, with an error of that class."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def predict_action_chunk(self, observations, *, seed):
        if any(one["state"][1] % 2 and one["image"][0, 0, 0] > 42 for one in observations):
            self.asked.append(-len(observations))
            raise self.error("no such\n  picture")
        return super().predict_action_chunk(observations, seed=seed)


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_what_a_policy_refuses_ends_its_own_episode_alone(error):
    policy, seeds = Choosy(error), [0, 1, 2, 3]
    runs = drive(policy, corridors(3), seeds)
    assert -3 in policy.asked  # the refused one had company
    calm = drive(Dice(), corridors(1), seeds)
    assert facts(runs)[::2] == facts(calm)[::2]
    for run in runs[1::2]:
        assert run.error == f"plan 2: {error.__name__}: no such picture"
        assert (run.num_steps, run.num_plans, run.success) == (3, 1, False)
    (alone,) = drive(Choosy(error), corridors(1), [1])
    assert facts([alone]) == facts(runs)[1:2]


def test_other_errors_of_a_policy_end_the_drive():
    with pytest.raises(MemoryError):
        drive(Choosy(MemoryError), corridors(2), [0, 1])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("state", np.zeros(3, np.float32), r"state must have shape \(2,\)"),
        ("state", np.array([0.5, 9e9], np.float32), "dimension 1 of state is 9e"),
        ("image", np.zeros((16, 16, 3), np.uint8), r"\(32, 32\) pixels; got \(16, 16\)"),
        ("image", np.full((32, 32, 3), np.nan, np.float32), "finite"),
        ("instruction", "", "instruction must be a str"),
    ],
)
def test_a_bad_observation_ends_its_own_episode_alone(monkeypatch, name, value, words):
    """The bundled policy replans after what a broken camera, sensor or speaker gave."""
    policy = MaskedDiffusionPolicy.from_pretrained(
        bundled_checkpoint(), PolicySettings(decoding={"max_denoising_steps": 1}, replan_every=4)
    )
    original = TabletopEnv.observe

    def observe(env):
        seen = original(env)
        is_bad = env.breaks and getattr(env, "num_seen", 0) == 1
        env.num_seen = getattr(env, "num_seen", 0) + 1
        return {**seen, name: value} if is_bad else seen

    monkeypatch.setattr(TabletopEnv, "observe", observe)
    envs = [TabletopEnv("reach", "test") for _ in range(2)]
    envs[0].breaks, envs[1].breaks = False, True
    good, bad = drive(policy, envs, [0, 1], Drive(View.of(policy)))
    assert good.error is None
    assert good.num_plans > 1
    assert bad.num_plans == 1
    assert bad.error.startswith("plan 2: ")
    assert re.search(words, bad.error)


def test_a_reset_that_raises_is_an_error_too(monkeypatch):
    monkeypatch.setattr(Corridor, "observe", lambda self: {"state": np.zeros(2)})
    (run,) = drive(Dice(), corridors(1), [0])
    assert run.error.startswith("reset: ")
    assert run.num_plans == 0


def test_actions_are_clipped_and_never_nonsense():
    class Wild(Dice):
        def predict_action_chunk(self, observations, *, seed):
            return np.tile([[9.0, -9.0], [np.nan, 0.0]], (len(observations), 2, 1))

    (env,) = envs = corridors(1)
    (run,) = drive(Wild(), envs, [0])
    assert env.executed[0].tolist() == [1.0, -1.0]
    assert env.executed[0].dtype == np.float32
    assert run.error.startswith("step 2: ValueError: expected finite numbers")
    assert len(env.executed) == 1


@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 2, 2), (2, 4, 2), (4, 2)])
def test_a_policy_that_gives_other_chunks_is_refused(shape):
    policy = Dice()
    policy.predict_action_chunk = lambda observations, *, seed: np.zeros(shape)
    with pytest.raises(ValueError, match="expected chunks of shape"):
        drive(policy, corridors(1), [0])
    with pytest.raises(ValueError, match="at least one environment"):
        drive(policy, [], [0])


def test_words_and_cameras_are_the_view_s():
    policy = Dice()
    how = Drive(View(("front",), has_state=False), instruction="turn round")
    (run,) = drive(policy, corridors(1, cameras=("side", "front")), [0], how)
    assert set(policy.seen[0]) == {"images", "instruction"}
    assert set(policy.seen[0]["images"]) == {"front"}
    assert run.instruction == policy.seen[0]["instruction"] == "turn round"


@pytest.mark.parametrize(
    ("view", "cameras", "words"),
    [
        (View(("wrist", "side")), ("side", "front"), r"lacks \['wrist'\]"),
        (View(), ("side", "front"), "the policy sees one camera"),
        (View(("side", "front")), ("image",), r"lacks \['front', 'side'\]"),
    ],
)
def test_a_missing_camera_is_named(view, cameras, words):
    (run,) = drive(Dice(), corridors(1, cameras=cameras), [0], Drive(view))
    assert run.error.startswith("reset: ValueError")
    with pytest.raises(ValueError, match=words):
        view(Corridor(cameras=cameras).reset(seed=0)[0])


def test_a_single_camera_of_any_name_is_the_policy_s():
    seen = View(("side",))(Corridor().reset(seed=0)[0])
    assert set(seen["images"]) == {"side"}


def test_cost_is_that_of_the_records():
    policy = Dice()
    policy.last_record = SimpleNamespace(num_forwards=(5,), futures=())
    (run,) = drive(policy, corridors(1), [0])
    assert run.num_forwards == 5 * run.num_plans
    assert drive(Dice(), corridors(1), [0])[0].num_forwards == run.num_plans
    assert run.seconds > 0


def test_watching_sees_every_round():
    seen = []
    runs = drive(Dice(), corridors(2), [0, 1, 2], on_round=lambda now: seen.append(len(now)))
    assert seen[0] == 2
    assert seen[-1] == len(runs) == 3


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 57, 200])
def test_a_film_stays_small_and_has_the_first_and_the_last_picture(count):
    film = Film(most=10)
    for step in range(count):
        film.add(np.full((2, 2, 3), step % 256, np.uint8), step)
    assert len(film.frames) == len(film.steps) <= 10
    assert film.steps[0] == 0
    assert film.steps[-1] == count - 1
    assert [frame[0, 0, 0] for frame in film.frames] == [step % 256 for step in film.steps]
    assert len(set(np.diff(film.steps)[:-1])) <= 1  # evenly apart, but for the last
    assert len(film.frames) >= min(count, 5)


def test_only_the_first_episodes_are_filmed():
    runs = drive(Dice(), corridors(1), [0, 1, 2], Drive(num_filmed=2))
    assert [run.film is not None for run in runs] == [True, True, False]
    assert runs[0].film.steps == list(range(runs[0].num_steps + 1))


def test_a_chunk_at_one_blow_is_the_chunk_step_by_step(monkeypatch):
    pictures = []
    original = TabletopEnv.observe
    monkeypatch.setattr(TabletopEnv, "observe", lambda s: pictures.append(1) or original(s))

    def played(num_filmed):
        del pictures[:]
        env = TabletopEnv("reach", "test")
        runs = drive(Dice(), [env], [3, 4], Drive(num_filmed=num_filmed))
        return facts(runs), len(pictures)

    filmed, many = played(2)
    bare, few = played(0)
    assert filmed == bare
    assert few < many / 2


@pytest.mark.slow
def test_the_bundled_policy_drives_tables_alike_alone_and_together():
    policy = MaskedDiffusionPolicy.from_pretrained(bundled_checkpoint())
    how = Drive(View.of(policy), num_filmed=2)
    together = drive(policy, [TabletopEnv("push", "test") for _ in range(2)], [0, 1], how)
    alone = drive(policy, [TabletopEnv("push", "test")], [1], how)
    assert facts(alone) == facts(together)[1:]
    assert all(run.success for run in together)
    assert all(
        np.array_equal(one, other)
        for one, other in zip(alone[0].film.frames, together[1].film.frames, strict=True)
    )
    assert together[0].num_forwards == 4 * together[0].num_plans
