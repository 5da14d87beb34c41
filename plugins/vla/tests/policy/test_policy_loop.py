"""python -m pytest plugins/vla/tests/policy/test_policy_loop.py"""

import numpy as np
import pytest

from unidiff.data.sources.tabletop_rollout import evaluation_seeds
from unidiff.diffusion.random import hash_integers

SAMPLED = {"do_sample": True, "max_denoising_steps": 2, "unmasking_strategy": "static"}


def plan_key(seed, number):
    return [int(hash_integers(seed, number))]


def test_the_policy_loop_reaches_the_disc(policy, drive):
    success = [drive(policy, "reach", seed)[0] for seed in evaluation_seeds(16)]
    assert np.mean(success) >= 0.8


@pytest.mark.parametrize("replan_every", [None, 3])
def test_the_queue_plays_what_predict_action_chunk_plans(policy_with, observations, replan_every):
    policy = policy_with(replan_every=replan_every, decoding=SAMPLED)
    count = replan_every or policy.horizon
    first, second = observations[:2]
    played = [policy.select_action(first) for _ in range(count)]
    played += [policy.select_action(second) for _ in range(count)]
    planned = [
        policy.predict_action_chunk(one, seed=plan_key(0, number))[0, :count]
        for number, one in enumerate((first, second))
    ]
    assert policy.num_plans == 2
    assert np.array_equal(played, np.concatenate(planned))
    assert played[0].shape == (2,)
    assert played[0].dtype == np.float32


def test_an_action_handed_out_is_the_callers_own(policy, observations):
    policy.reset()
    policy.select_action(observations[0])[:] = np.nan
    assert np.isfinite(policy.last_record.chunks).all()
    policy.predict_action_chunk(observations[0])[:] = np.nan
    assert np.isfinite(policy.last_record.chunks).all()


def test_reset_forgets_the_queue_and_repeats_bit_for_bit(policy_with, observations):
    policy = policy_with(decoding=SAMPLED, replan_every=2)

    def three(seed):
        policy.reset(seed)
        return np.stack([policy.select_action(observations[0]) for _ in range(3)])

    first = three(None)
    assert np.array_equal(first, three(0))
    assert not np.array_equal(first, three(1))


def test_plans_of_one_episode_draw_different_numbers(policy_with, observations):
    policy = policy_with(decoding=SAMPLED, replan_every=1)
    actions = [policy.select_action(observations[0]) for _ in range(4)]
    assert len({action.tobytes() for action in actions}) > 1


def test_a_reused_prompt_changes_no_action(policy_with, drive):
    seed = evaluation_seeds(1)[0]
    settings = {"replan_every": 2}
    plain = drive(policy_with(**settings), "push", seed, 10)[1]
    reusing = policy_with(reuses_prompt=True, **settings)
    assert np.array_equal(plain, drive(reusing, "push", seed, 10)[1])
    record = reusing.last_record
    assert 3 <= record.num_reused_tokens < record.num_prompt_tokens[0]


def test_the_same_observation_shares_its_whole_prompt(policy_with, observations, monkeypatch):
    policy = policy_with(replan_every=1, reuses_prompt=True)
    given, generate = [], policy.model.generate

    def spy(**keywords):
        given.append(keywords["past_key_values"])
        return generate(**keywords)

    monkeypatch.setattr(policy.model, "generate", spy)
    first = policy.select_action(observations[0])
    assert policy.last_record.num_reused_tokens == 0
    assert np.array_equal(first, policy.select_action(observations[0]))
    record = policy.last_record
    assert record.num_reused_tokens == record.num_prompt_tokens[0]
    assert given[0] is None
    assert len(given[1].token_ids[0]) == record.num_prompt_tokens[0]
    policy.reset()
    policy.select_action(observations[0])
    assert policy.last_record.num_reused_tokens == 0
    assert given[2] is None
