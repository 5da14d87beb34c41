"""python -m pytest plugins/vla/tests/policy/test_policy_calibration.py"""

import numpy as np
import pytest
from unidiff_vla.policy import calibrate_steps
from unidiff_vla.policy.calibration import chunk_difference


def test_the_fewest_steps_below_the_bound_are_chosen(policy, observations):
    recordings = {"reach": observations[::2], "push": observations[1::2]}
    bound = 0.05
    found = calibrate_steps(policy, recordings, bound, candidates=(8, 1, 2, 4))
    for task, seen in recordings.items():
        full = policy.predict_action_chunk(seen, seed=0, max_denoising_steps=16)
        assert policy.last_record.num_forwards == (16, 16)
        expected = {
            steps: chunk_difference(
                policy.predict_action_chunk(seen, seed=0, max_denoising_steps=steps),
                full,
                policy.bins,
            )
            for steps in (1, 2, 4, 8)
        }
        good = [steps for steps, value in expected.items() if value < bound]
        assert found[task].num_steps == min(good, default=16)
        assert found[task].full_steps == 16
        assert found[task].differences == {
            steps: expected[steps] for steps in found[task].differences
        }
        assert max(found[task].differences) <= found[task].num_steps


def test_a_wide_bound_takes_one_step_and_a_narrow_one_them_all(policy, observations):
    recordings = {"reach": observations[:2]}
    assert calibrate_steps(policy, recordings, 10.0)["reach"].num_steps == 1
    narrow = calibrate_steps(policy, recordings, 1e-12, candidates=(1, 2, 16, 99))["reach"]
    assert narrow.num_steps == 16
    assert set(narrow.differences) == {1, 2}
    assert min(narrow.differences.values()) > 0


def test_one_step_is_not_tried_where_tokens_are_given_back(visible_policy_with, observations):
    decoding = {"revision": "secondary", "revision_drop": 1.0, "unmasking_strategy": "static"}
    found = calibrate_steps(
        visible_policy_with(decoding=decoding), {"reach": observations[:1]}, 10.0
    )
    assert found["reach"].num_steps == 2


def test_the_seed_repeats_a_calibration_of_sampled_plans(policy_with, observations):
    policy = policy_with(decoding={"do_sample": True, "unmasking_strategy": "static"})
    recordings = {"reach": observations[:2]}

    def calibrated(seed):
        return calibrate_steps(policy, recordings, 1e-9, candidates=(2,), seed=seed)["reach"]

    assert calibrated(1) == calibrated(1)
    assert calibrated(1).differences != calibrated(2).differences


def test_differences_are_in_ranges_of_each_dimension(policy):
    width = np.array(policy.bins.high) - np.array(policy.bins.low)
    chunks = np.zeros((3, 8, 2))
    assert chunk_difference(chunks, chunks + 0.25 * width, policy.bins) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("recordings", "bound", "candidates", "message"),
    [
        ({"reach": []}, 0.1, (1,), r"none of \['reach'\]"),
        ({}, 0.0, (1,), "bound must be > 0"),
        ({}, float("nan"), (1,), "bound must be > 0"),
        ({}, 0.1, (), "candidates"),
        ({}, 0.1, (0, 1), "candidates"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(policy, recordings, bound, candidates, message):
    with pytest.raises(ValueError, match=message):
        calibrate_steps(policy, recordings, bound, candidates=candidates)
