"""Folders that we write are read by lerobot, and the other way round, frame by frame."""

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="lerobot is absent: run `make test-lerobot`")

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from unidiff_vla.lerobot_dataset import LeRobotFolder, stream_samples


def _picture(frame):
    """(h, w, 3) uint8 of lerobot's (3, h, w) float picture."""
    return (frame.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)


def test_lerobot_reads_our_folder(table_dataset):
    ours, theirs = LeRobotFolder(table_dataset), LeRobotDataset("unidiff/table", table_dataset)
    assert (theirs.num_episodes, theirs.num_frames) == (len(ours), ours.num_frames)
    assert theirs.fps == ours.fps
    place = 0
    for episode in ours:
        for step in range(len(episode)):
            frame = theirs[place]
            assert np.array_equal(
                _picture(frame["observation.image"]), episode.frames["observation.image"][step]
            )
            for name in ("observation.state", "action"):
                assert np.array_equal(frame[name].numpy(), episode.frames[name][step])
            assert frame["task"] == episode.instruction
            assert int(frame["episode_index"]) == episode.index
            assert int(frame["frame_index"]) == step
            place += 1


def test_lerobot_reads_our_statistics(table_dataset):
    ours, theirs = LeRobotFolder(table_dataset), LeRobotDataset("unidiff/table", table_dataset)
    for name in ("observation.image", "observation.state", "action"):
        for key in ("min", "max", "mean", "std", "q01", "q99"):
            assert np.allclose(theirs.meta.stats[name][key], ours.statistics[name][key])


def test_lerobot_cuts_the_same_chunks(table_dataset):
    theirs = LeRobotDataset(
        "unidiff/table", table_dataset, delta_timestamps={"action": [i / 10 for i in range(8)]}
    )
    ours = list(stream_samples(LeRobotFolder(table_dataset), horizon=8))
    assert len(ours) == len(theirs)
    for place, sample in enumerate(ours):
        frame = theirs[place]
        assert np.array_equal(frame["action"].numpy(), sample["action"])
        assert np.array_equal(frame["action_is_pad"].numpy(), sample["action_is_pad"])


def test_we_read_lerobots_folder(tmp_path):
    features = {
        "observation.images.top": {
            "dtype": "image",
            "shape": (24, 32, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    }
    written = LeRobotDataset.create(
        "unidiff/written", fps=5, features=features, root=tmp_path / "set", use_videos=False
    )
    rng = np.random.default_rng(0)
    episodes = []
    for number in range(2):
        frames = [
            {
                "observation.images.top": rng.integers(0, 256, (24, 32, 3), dtype=np.uint8),
                "observation.state": rng.normal(size=3).astype(np.float32),
                "action": rng.normal(size=2).astype(np.float32),
            }
            for _ in range(4 + number)
        ]
        for frame in frames:
            written.add_frame({**frame, "task": f"task {number}"})
        written.save_episode()
        episodes.append(frames)
    written.finalize()
    folder = LeRobotFolder(tmp_path / "set")
    assert folder.fps == 5
    assert [len(episode) for episode in folder] == [4, 5]
    for episode, frames in zip(folder, episodes, strict=True):
        assert episode.instruction == f"task {episode.index}"
        for name in features:
            assert np.array_equal(episode.frames[name], np.stack([one[name] for one in frames]))
