"""pytest plugins/vla/tests/test_chunks.py"""

import numpy as np
import pytest
from unidiff_vla.lerobot_dataset import LeRobotFolder, action_chunks, stream_samples


def test_beyond_the_end_the_last_action_is_repeated_and_marked():
    chunks, is_pad = action_chunks(np.array([[1.0], [2.0], [3.0]]), 3)
    assert chunks[..., 0].tolist() == [[1, 2, 3], [2, 3, 3], [3, 3, 3]]
    assert is_pad.tolist() == [[False] * 3, [False, False, True], [False, True, True]]


def test_a_horizon_longer_than_the_episode_is_mostly_padding():
    chunks, is_pad = action_chunks(np.array([[5.0]]), 4)
    assert chunks.shape == (1, 4, 1)
    assert is_pad.tolist() == [[False, True, True, True]]


def test_samples_are_streamed_in_the_order_asked_for(dataset):
    folder = LeRobotFolder(dataset)
    samples = list(stream_samples(folder, 4, episodes=[3, 1], stride=2))
    places = [(one["episode_index"], one["frame_index"]) for one in samples]
    expected = [(n, step) for n in (3, 1) for step in range(0, len(folder.episode(n)), 2)]
    assert places == expected
    last = [one for one in samples if one["episode_index"] == 1][-1]
    episode = folder.episode(1)
    np.testing.assert_array_equal(last["action"][0], episode.frames["action"][last["frame_index"]])
    np.testing.assert_array_equal(last["action"][-1], episode.frames["action"][-1])
    assert last["action_is_pad"][-1]
    assert last["task"] == episode.instruction
    np.testing.assert_array_equal(
        last["observation.image"], episode.frames["observation.image"][last["frame_index"]]
    )


def test_one_episode_is_read_at_a_time(dataset, monkeypatch):
    folder = LeRobotFolder(dataset)
    read = []
    original = folder.episode
    monkeypatch.setattr(folder, "episode", lambda n: read.append(n) or original(n))
    samples = stream_samples(folder, 2)
    assert read == []
    next(samples)
    assert read == [0]
    assert len(list(samples)) == folder.num_frames - 1
    assert read == list(range(6))


def test_what_cannot_be_streamed_is_refused(dataset):
    folder = LeRobotFolder(dataset)
    with pytest.raises(ValueError, match="expected horizon >= 1"):
        action_chunks(np.zeros((2, 1)), 0)
    with pytest.raises(ValueError, match="stride >= 1"):
        stream_samples(folder, 2, stride=0)
    folder.features.pop("action")
    with pytest.raises(ValueError, match="expected a feature 'action'"):
        stream_samples(folder, 2)
