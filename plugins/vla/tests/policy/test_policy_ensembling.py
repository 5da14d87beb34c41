"""python -m pytest plugins/vla/tests/policy/test_policy_ensembling.py"""

import numpy as np
import pytest
from unidiff_vla.policy import TemporalEnsemble

from unidiff.diffusion.random import hash_integers


def brute_force(chunks, executed, decay, timestep):
    """The weighted mean of all predictions of a timestep, oldest first, from all the chunks."""
    said = [
        chunk[timestep - number * executed]
        for number, chunk in enumerate(chunks)
        if 0 <= timestep - number * executed < len(chunk)
    ]
    weights = np.exp(-decay * np.arange(len(said)))
    return (weights[:, None] * said).sum(0) / weights.sum()


@pytest.mark.parametrize("decay", [0.01, 0.0, -0.5, 2.0])
@pytest.mark.parametrize("executed", [1, 3, 8])
def test_the_online_average_equals_the_sum_over_all_chunks(decay, executed):
    chunks = np.random.default_rng(0).normal(size=(9, 8, 2))
    ensemble = TemporalEnsemble(decay)
    for number, chunk in enumerate(chunks):
        if number:
            ensemble.advance(executed)
        found = ensemble.update(chunk)
        start = number * executed
        expected = [
            brute_force(chunks[: number + 1], executed, decay, start + step) for step in range(8)
        ]
        assert np.allclose(found, expected, rtol=0, atol=1e-12)


def test_an_average_handed_out_is_the_callers_own():
    ensemble = TemporalEnsemble()
    ensemble.update(np.zeros((4, 1)))[:] = 7
    assert ensemble.mean_ND.max() == 0


def test_select_action_executes_the_average(policy_with, observations):
    policy = policy_with(replan_every=2, ensemble_decay=0.3, decoding={"do_sample": True})
    seen = [observations[number] for number in (0, 2, 0)]
    actions = [policy.select_action(one) for one in seen for _ in range(2)]
    chunks = [
        policy.predict_action_chunk(one, seed=[int(hash_integers(0, number))])[0]
        for number, one in enumerate(seen)
    ]
    expected = [
        brute_force(chunks[: step // 2 + 1], 2, 0.3, step).astype(np.float32) for step in range(6)
    ]
    assert np.allclose(actions, expected, rtol=0, atol=1e-6)
    assert actions[0].dtype == np.float32


def test_reset_forgets_the_averages(policy_with, observations):
    policy = policy_with(replan_every=1, ensemble_decay=0.0)
    first = [policy.select_action(one) for one in observations[:2]]
    policy.reset()
    assert np.array_equal(first[0], policy.select_action(observations[0]))
    assert np.array_equal(first[1], policy.select_action(observations[1]))
