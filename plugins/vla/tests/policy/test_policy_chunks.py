"""python -m pytest plugins/vla/tests/policy/test_policy_chunks.py"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings, num_reveals
from unidiff_vla.policy.observations import ObservationEncoder

from unidiff.cli import samplers
from unidiff.data.sources.tabletop_rollout import evaluation_seeds

SAMPLED = {"do_sample": True, "max_denoising_steps": 2}
SECONDARY = {
    "revision": "secondary",
    "revision_threshold": 0.9,
    "revision_drop": 0.05,
    "unmasking_strategy": "static",
    "max_denoising_steps": 6,
}


def test_defaults_are_those_of_the_suite(policy):
    assert PolicySettings().decoding == samplers.acting()
    assert policy.settings.decoding == samplers.acting()
    assert policy.num_executed == samplers.replan_every()


def test_prompts_are_those_of_the_processor(parts, policy, observations):
    one = observations[0]
    expected = parts[1].for_action(one["image"], one["state"], one["instruction"])
    inputs = ObservationEncoder(parts[1], policy.settings)([one])
    assert set(inputs) == set(expected)
    assert all((inputs[name] == expected[name]).all() for name in expected)


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_gives_what_its_rows_give_alone(policy, observations, options):
    chunks = policy.predict_action_chunk(observations, seed=7, **options)
    seeds = policy.last_record.seeds
    assert chunks.shape == (4, 8, 2)
    assert chunks.dtype == np.float32
    for row, one in enumerate(observations):
        alone = policy.predict_action_chunk(one, seed=[seeds[row]], **options)
        assert np.array_equal(alone[0], chunks[row])


def test_a_seed_repeats_a_sampled_chunk_and_another_one_does_not(policy, observations):
    chunk = policy.predict_action_chunk(observations[0], seed=1, **SAMPLED)
    again = policy.predict_action_chunk(observations[0], seed=np.int64(1), **SAMPLED)
    other = policy.predict_action_chunk(observations[0], seed=2, **SAMPLED)
    assert np.array_equal(chunk, again)
    assert not np.array_equal(chunk, other)


def test_the_record_tells_cost_and_confidence(policy, observations):
    chunks = policy.predict_action_chunk(observations[:2], max_denoising_steps=3)
    record = policy.last_record
    assert np.array_equal(record.chunks, chunks)
    assert record.num_forwards == (3, 3)
    assert record.seconds > 0
    assert not record.is_pinned.any()
    for trace, confidence in zip(record.traces, record.confidence.reshape(2, 16), strict=True):
        assert sorted(trace.index) == list(range(16))
        assert confidence[trace.index[5]] == trace.confidence[5]


def test_several_cameras_stand_in_the_order_of_the_settings(parts, policy_with, observations):
    left, right = (one["image"] for one in observations[:2])
    rest = {name: observations[0][name] for name in ("state", "instruction")}
    policy = policy_with(cameras=("left", "right"))
    chunk = policy.predict_action_chunk({"images": {"right": right, "left": left}, **rest})
    assert chunk.shape == (1, 8, 2)
    inputs = ObservationEncoder(parts[1], policy.settings)(
        [{"images": {"right": right, "left": left}, **rest}]
    )
    codes = [parts[1].image_codes(image) for image in (left, right)]
    ids = inputs["input_ids"][0].numpy()
    found = parts[1].layout.decode("image", ids[parts[1].layout.modality_ids(ids) == 1])
    assert np.array_equal(found, np.concatenate(codes))


def test_guidance_reads_a_dropped_condition(policy, observations):
    plain = policy.predict_action_chunk(observations)
    guided = policy.predict_action_chunk(observations, guidance_scale=3.0)
    assert not np.array_equal(plain, guided)
    assert np.isfinite(guided).all()


@pytest.mark.parametrize("mode", ["diffusion", "ar"])
def test_actions_may_be_medians(policy, observations, mode):
    """With one place left to decode, it takes the middle of what is said of it."""
    options = {"decoding_mode": mode} | ({"max_denoising_steps": 1} if mode == "diffusion" else {})
    seen = []

    def keep(ids, scores):
        seen.append(scores.double().softmax(-1))
        return scores

    policy.predict_action_chunk(
        observations[0], logits_processor=[keep], greedy_choice="median", **options
    )
    law = torch.cat(seen)  # (16, V), a place after the other
    assert len(law) == 16
    half = (law.cumsum(-1) > 0.5).int().argmax(-1)
    actions = policy.processor.layout.range_of("action")
    codes = policy.bins.encode(policy.last_record.chunks[0]).reshape(-1)
    assert codes.tolist() == (half - actions.start).tolist()
    assert (law.argmax(-1) != half).any()


def test_the_bundled_weights_refuse_secondary_remasking(policy_with):
    with pytest.raises(ValueError, match="trained_on_visible=False"):
        policy_with(decoding=SECONDARY)


def test_secondary_remasking_reveals_tokens_again(visible_policy_with, observations):
    policy = visible_policy_with(decoding=SECONDARY)
    chunk = policy.predict_action_chunk(observations[0])
    record = policy.last_record
    assert num_reveals(record.traces[0], (8, 2)).max() > 1
    bins = policy.bins
    assert (chunk >= np.float32(bins.low)).all()
    assert (chunk <= np.float32(bins.high)).all()
    trace = record.traces[0]
    last = {place: confidence for _, place, _, confidence in trace}
    assert np.array_equal(record.confidence.reshape(-1), [last[place] for place in range(16)])


def test_secondary_remasking_leaves_pinned_actions_alone(visible_policy_with, observations):
    policy = visible_policy_with(decoding=SECONDARY)
    leftover = np.full((3, 2), 0.5, dtype=np.float32)
    chunk = policy.predict_action_chunk(observations[0], leftover=leftover, inference_delay=3)
    assert np.array_equal(chunk[0, :3], leftover)
    assert num_reveals(policy.last_record.traces[0], (8, 2))[:3].max() == 0


def test_what_falls_outside_the_bins_is_brought_back(parts, observations):
    class Wild:
        """A processor whose actions leave the bins."""

        def __getattr__(self, name):
            return getattr(parts[1], name)

        def post_process(self, output, inputs):
            return [np.full((8, 2), self.value)] * len(inputs["input_ids"])

    processor = Wild()
    policy = MaskedDiffusionPolicy(parts[0], processor)
    processor.value = 50.0
    assert np.array_equal(
        policy.predict_action_chunk(observations[0])[0, 0], np.float32(policy.bins.high)
    )
    processor.value = np.nan
    with pytest.raises(ValueError, match="not finite"):
        policy.predict_action_chunk(observations[0])


PROGRAM = """
import json, sys
import torch
from unidiff.data.sources.tabletop import TabletopEnv
from unidiff_vla.policy import MaskedDiffusionPolicy
torch.set_num_threads(1)
policy = MaskedDiffusionPolicy.from_pretrained(sys.argv[1])
observation, _ = TabletopEnv("push").reset(seed=int(sys.argv[2]))
actions = [policy.select_action(observation) for _ in range(5)]
print(json.dumps([action.tobytes().hex() for action in actions]))
"""


def test_a_new_process_repeats_the_actions_from_the_folder_alone(
    parts, observations, tmp_path, drive
):
    settings = PolicySettings(decoding=SAMPLED, replan_every=2, inference_delay=1, seed=11)
    policy = MaskedDiffusionPolicy(*parts, settings)
    policy.save_pretrained(tmp_path)
    loaded = MaskedDiffusionPolicy.from_pretrained(tmp_path)
    assert loaded.settings == settings
    assert str(loaded.model.dtype) == "torch.float32"
    actions = [policy.select_action(observations[1]) for _ in range(5)]
    seed = evaluation_seeds(2)[1]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(seed)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    assert found == [action.tobytes().hex() for action in actions]
