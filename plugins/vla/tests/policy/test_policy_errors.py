"""python -m pytest plugins/vla/tests/policy/test_policy_errors.py"""

import json

import numpy as np
import pytest
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings
from unidiff_vla.policy.settings import SETTINGS_FILE

from unidiff.bundled import bundled_checkpoint
from unidiff.tokens.fast import FastTokenizer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": np.array([0.1, np.nan])}, "observation 0: state must be finite"),
        ({"state": np.zeros(3)}, r"state must have shape \(2,\); got \(3,\)"),
        ({"state": np.zeros((1, 2))}, r"state must have shape \(2,\); got \(1, 2\)"),
        ({"state": np.array([1e30, 0.5])}, r"dimension 0 of state is 1e\+30, .* 0\.11\d+ to 0\.88"),
        (
            {"state": np.array([0.5, -2.3])},
            "observation 0: dimension 1 of state is -2.3, more than 3 widths",
        ),
        ({"state": np.array([0.5, 0.5j])}, "state must be real numbers; got complex128"),
        ({"state": [0.5, 0.5j]}, "state must be real numbers; got complex128"),
        ({"state": ["a", 1]}, "state must be real numbers"),
        ({"state": None}, "state must be real numbers; got object"),
        ({"state": [[0.5], [0.5, 1.0]]}, "state must be an array of real numbers"),
        ({"image": np.zeros((64, 48, 3), np.uint8)}, r"\(32, 32\) pixels; got \(64, 48\)"),
        ({"image": np.zeros((16, 16, 3), np.uint8)}, r"\(32, 32\) pixels; got \(16, 16\)"),
        ({"wrist": np.zeros((32, 32, 3), np.uint8)}, "exactly the keys"),
        ({"instruction": " "}, "instruction must be a str"),
        ({"instruction": None}, "instruction must be a str"),
        ({"instruction": "go " * 2000}, "model's context holds 1024"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(policy, observations, change, message):
    policy.reset()
    broken = {**observations[0], **change}
    with pytest.raises(ValueError, match=message):
        policy.predict_action_chunk(broken)
    with pytest.raises(ValueError, match=message):
        policy.select_action(broken)


def test_a_state_a_bit_outside_the_bins_is_clipped(policy, observations):
    """Up to three widths of the range beyond it."""
    low, high = (
        np.array(one) for one in (policy.processor.state_bins.low, policy.processor.state_bins.high)
    )
    plans = [
        policy.predict_action_chunk({**observations[0], "state": state})
        for state in (high, high + 2.99 * (high - low))
    ]
    assert np.array_equal(*plans)
    training = policy.encoder.content({**observations[0], "state": np.full(2, 50.0)}, "row 0")
    assert training[1]["state"].tolist() == [50, 50]  # what was recorded is learnt from


def test_the_error_names_the_observation_of_a_batch(policy, observations):
    broken = {**observations[1], "state": np.full(2, np.inf)}
    with pytest.raises(ValueError, match="observation 1: state must be finite"):
        policy.predict_action_chunk([observations[0], broken])


@pytest.mark.parametrize("missing", ["image", "state", "instruction"])
def test_a_missing_key_is_named(policy, observations, missing):
    partial = {name: value for name, value in observations[0].items() if name != missing}
    with pytest.raises(ValueError, match="exactly the keys"):
        policy.predict_action_chunk(partial)


@pytest.mark.parametrize("names", [("front",), ("front", "top"), ("front", "wrist", "top")])
def test_camera_names_are_those_of_training(policy_with, observations, names):
    policy = policy_with(cameras=("front", "wrist"))
    image = observations[0]["image"]
    rest = {name: observations[0][name] for name in ("state", "instruction")}
    with pytest.raises(ValueError, match="exactly the cameras"):
        policy.predict_action_chunk({"images": dict.fromkeys(names, image), **rest})
    with pytest.raises(ValueError, match="got ndarray"):
        policy.predict_action_chunk({"images": image, **rest})


def test_another_image_size_holds_when_it_is_set(policy_with, observations):
    policy = policy_with(image_size=(64, 48))
    large = {**observations[0], "image": np.zeros((64, 48, 3), np.uint8)}
    assert policy.predict_action_chunk(large).shape == (1, 8, 2)
    with pytest.raises(ValueError, match=r"\(64, 48\) pixels; got \(32, 32\)"):
        policy.predict_action_chunk(observations[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replan_every": 9}, r"replan_every must lie in \[1, 8\].*got 9"),
        ({"replan_every": 0}, r"replan_every must lie in \[1, 8\]"),
        ({"inference_delay": 1}, r"inference_delay must lie in \[0, 0\]"),
        ({"replan_every": 5, "inference_delay": 4}, r"inference_delay must lie in \[0, 3\]"),
        ({"inference_delay": -1}, "inference_delay must lie in"),
        ({"warm_start": 0.0}, "warm_start must be in"),
        ({"warm_start": 1.5}, "warm_start must be in"),
        ({"ensemble_decay": float("nan")}, "ensemble_decay must be finite"),
        ({"ensemble_decay": 0.1, "warm_start": 0.5}, "ensembling executes averages"),
        (
            {"ensemble_decay": 0.1, "replan_every": 1, "inference_delay": 1},
            "ensembling executes averages",
        ),
        ({"cameras": ("a", "a")}, "cameras must be"),
        ({"cameras": ()}, "cameras must be"),
        ({"decoding": {"seed": 3}}, "the policy sets them"),
        ({"decoding": {"max_new_tokens": 3}}, "the policy sets them"),
        ({"decoding": {"num_steps": 3}}, "max_denoising_steps"),
        ({"decoding": {"revision": "secondary"}}, "trained_on_visible=False"),
        ({"decoding": {"confidence_threshold": 2.0}}, "confidence_threshold"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(policy_with, settings, message):
    with pytest.raises(ValueError, match=message):
        policy_with(**settings)


def test_observations_are_dicts_and_there_is_one(policy, observations):
    with pytest.raises(ValueError, match="at least one"):
        policy.predict_action_chunk([])
    for wrong in ([observations[0]["image"]], None, 5, "abc"):
        with pytest.raises(TypeError, match="must be a dict"):
            policy.predict_action_chunk(wrong)


def test_an_unknown_option_is_refused(policy, observations):
    with pytest.raises(ValueError, match="max_denoising_steps"):
        policy.predict_action_chunk(observations[0], num_steps=3)


def test_an_option_that_the_policy_sets_is_refused(policy, observations):
    with pytest.raises(ValueError, match="the policy sets them"):
        policy.predict_action_chunk(observations[0], return_trace=False)


def test_a_checkpoint_without_actions_is_refused(parts):
    class NoActions:
        """A processor without action bins."""

        def __getattr__(self, name):
            return getattr(parts[1], name)

        def bins_of(self, modality):
            raise ValueError(f"this processor has no {modality}_bins")

    with pytest.raises(ValueError, match="no action_bins"):
        MaskedDiffusionPolicy(parts[0], NoActions())


def test_medians_of_codes_in_no_order_are_refused(parts, observations):
    chunks = np.random.default_rng(0).uniform(-1, 1, (8, 8, 2))

    class Fast:
        """A processor whose actions are FAST's codes."""

        def __getattr__(self, name):
            return getattr(parts[1], name)

        def bins_of(self, modality):
            return FastTokenizer.fit(chunks, length=16)

    medians = PolicySettings(decoding={"do_sample": False, "greedy_choice": "median"})
    with pytest.raises(ValueError, match="FAST's are numbers of merges"):
        MaskedDiffusionPolicy(parts[0], Fast(), medians)
    policy = MaskedDiffusionPolicy(parts[0], Fast(), PolicySettings())
    with pytest.raises(ValueError, match="FAST's are numbers of merges"):
        policy.predict_action_chunk(observations[0], greedy_choice="median")


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        MaskedDiffusionPolicy.from_pretrained(tmp_path)


def test_saved_settings_are_read_and_damaged_ones_refused(tmp_path):
    settings = PolicySettings(cameras=("a", "b"), image_size=(4, 5), warm_start=0.5)
    settings.save(tmp_path)
    assert PolicySettings.load(tmp_path) == settings
    (tmp_path / SETTINGS_FILE).write_text('{"replan_evry": 1}')
    with pytest.raises(ValueError, match="keys of"):
        PolicySettings.load(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text("{")
    with pytest.raises(ValueError, match="damaged or cut short"):
        PolicySettings.load(tmp_path)


def test_a_checkpoint_without_saved_settings_has_the_defaults():
    assert PolicySettings.load(bundled_checkpoint()) == PolicySettings()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replan_every": "4"}, "replan_every must be a whole number or null; got '4'"),
        ({"replan_every": 2.5}, "replan_every must be a whole number"),
        ({"decoding": None}, "decoding must be an object"),
        ({"decoding": "abc"}, "decoding must be an object"),
        ({"cameras": "side"}, "cameras must be a list of names"),
        ({"cameras": 5}, "cameras must be a list of names"),
        ({"image_size": [64]}, r"image_size must be \[height, width\]"),
        ({"inference_delay": None}, "inference_delay must be a whole number"),
        ({"ensemble_decay": "x"}, "ensemble_decay must be a number"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"warm_start": True}, "warm_start must be in"),
        ({"foresees": 1}, "foresees must be true or false"),
    ],
)
def test_settings_of_the_wrong_kind_name_the_file(tmp_path, values, words):
    (tmp_path / "policy.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"policy\.json: {words}"):
        PolicySettings.load(tmp_path)
