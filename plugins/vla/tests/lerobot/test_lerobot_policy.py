"""The policy's chunks and single actions, its loss, and what it is after saving and loading."""

import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot", reason="lerobot is absent: run `make test-lerobot`")

from lerobot_policy_unidiff.modeling_unidiff import UniDiffVLAPolicy
from unidiff_vla.policy import MaskedDiffusionPolicy


def test_chunks_have_the_bins_shape_and_range(policy, batch):
    policy.reset()
    chunks = policy.predict_action_chunk(batch)
    assert chunks.shape == (2, 8, 2)
    assert bool((chunks >= torch.tensor(policy.driver.bins.low) - 1e-6).all())
    assert bool((chunks <= torch.tensor(policy.driver.bins.high) + 1e-6).all())


def test_select_action_plays_chunks_and_replans(policy, batch):
    policy.reset()
    actions = [policy.select_action(batch) for _ in range(4)]
    policy.reset()
    first, second = policy.predict_action_chunk(batch), policy.predict_action_chunk(batch)
    for step in range(3):
        assert torch.equal(actions[step], first[:, step])
    assert torch.equal(actions[3], second[:, 0])


def test_a_leftover_comes_back_as_it_is(policy, batch):
    policy.reset()
    left = policy.predict_action_chunk(batch)[:, 3:]
    chunks = policy.predict_action_chunk(batch, inference_delay=2, prev_chunk_left_over=left)
    assert torch.equal(chunks[:, :2], left[:, :2])


def test_a_saved_policy_comes_back_bit_for_bit_wherever_its_folder_is(policy, batch, tmp_path):
    policy.reset()
    before = policy.predict_action_chunk(batch)
    policy.save_pretrained(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    after = UniDiffVLAPolicy.from_pretrained(tmp_path / "moved")
    assert torch.equal(after.predict_action_chunk(batch), before)


def test_the_driver_saves_a_unidiff_checkpoint(policy, batch, tmp_path):
    policy.driver.save_pretrained(tmp_path)
    observation = {"image": np.zeros((32, 32, 3), np.uint8), "state": [0.3, 0.4]}
    observation["instruction"] = "reach the red target"
    chunks = MaskedDiffusionPolicy.from_pretrained(tmp_path).predict_action_chunk(observation)
    assert np.array_equal(chunks, policy.driver.predict_action_chunk(observation))


def test_the_loss_has_gradients_and_a_number(policy, batch):
    loss, parts = policy.forward(batch)
    loss.backward()
    policy.model.zero_grad()
    assert 0 < loss.item() < 20
    assert parts == {"nats_per_action_token": loss.item()}


def test_what_lies_behind_an_episode_has_no_loss(policy, batch):
    batch["action_is_pad"][:, 5:] = True
    with torch.no_grad():
        before = policy.forward(batch)[0].item()
        batch["action"][:, 5:] = 0.9
        assert policy.forward(batch)[0].item() == before
        batch["action"][:, 4] = 0.9
        assert policy.forward(batch)[0].item() != before


def test_the_noise_follows_from_the_number_of_batches(policy_of, batch):
    policy = policy_of().train()
    with torch.no_grad():
        losses = [policy.forward(batch)[0].item() for _ in range(8)]
        policy.num_batches.fill_(4)
        assert [policy.forward(batch)[0].item() for _ in range(4)] == losses[4:]
    assert len(set(losses)) > 2  # three quarters of the chunks are masked whole


def test_a_training_row_begins_like_the_prompt_of_decoding(policy, batch):
    from lerobot_policy_unidiff.batches import observations_of

    seen = observations_of(batch, policy.config)
    chunks = batch["action"].numpy()
    rows = policy._rows(seen, chunks, batch["action_is_pad"].numpy(), [1, 2], 0)
    prompt = policy.driver.encoder(seen)["input_ids"][0]
    prompt = prompt[prompt != policy.model.config.pad_token_id]
    assert torch.equal(rows["input_ids"][0, : len(prompt)], prompt)


def test_other_features_re_lay_the_bundled_weights(policy_of, statistics_of):
    cameras = ("images.side", "images.front")
    policy = policy_of(
        statistics_of(state=3, action=4), cameras=cameras, size=(64, 48), state=3, action=4,
        image_size=None, chunk_size=4, n_action_steps=4,
    )  # fmt: skip
    batch = {f"observation.{name}": torch.zeros(1, 3, 64, 48) for name in cameras}
    batch |= {"observation.state": torch.zeros(1, 3), "task": ["push"]}
    batch["action"] = torch.zeros(1, 4, 4)
    assert policy.predict_action_chunk(batch).shape == (1, 4, 4)
    assert torch.isfinite(policy.forward(batch)[0])
    assert policy.driver.bins.low == (-2.0,) * 4


def test_larger_pictures_are_fitted_into_image_size(policy_of, batch):
    policy = policy_of(size=(96, 64), image_size=32)
    batch["observation.image"] = torch.zeros(2, 3, 96, 64)
    assert policy.predict_action_chunk(batch).shape == (2, 8, 2)


def test_own_bins_stay_where_they_suit_the_data(policy_of, policy, statistics_of):
    statistics = statistics_of()
    statistics["action"] = {"q01": np.full(2, -0.9), "q99": np.full(2, 0.9)}
    statistics["observation.state"] = {"q01": np.full(2, 0.2), "q99": np.full(2, 0.8)}
    assert policy_of(statistics).driver.bins == policy.driver.bins
    statistics["action"]["q99"] = np.array([0.9, 1.5])
    assert policy_of(statistics).driver.bins.high == (0.9, 1.5)
    statistics["action"] = {"q01": np.full(2, -0.01), "q99": np.full(2, 0.01)}
    assert policy_of(statistics).driver.bins.high == (0.01, 0.01)


def test_the_instruction_of_the_options_stands_in(policy_of, batch):
    policy = policy_of(instruction="reach the red target")
    told = policy.predict_action_chunk(batch)
    policy.reset()
    batch["task"] = ["", "go to the blue disc"]
    assert torch.equal(policy.predict_action_chunk(batch), told)
