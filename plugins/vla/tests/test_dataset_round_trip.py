"""pytest plugins/vla/tests/test_dataset_round_trip.py"""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from unidiff_vla.lerobot_dataset import (
    DatasetWriter,
    Feature,
    LeRobotFolder,
    image_feature,
)
from unidiff_vla.lerobot_dataset import (
    writer as writer_module,
)

FEATURES = {
    "observation.image": image_feature(5, 4),
    "observation.state": Feature("float32", (3,), ("x", "y", "z")),
    "action": Feature("float64", (2,)),
    "next.success": Feature("bool", (1,)),
}


def frames(length, seed):
    rng = np.random.default_rng(seed)
    return {
        "observation.image": rng.integers(0, 256, (length, 5, 4, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)),
        "next.success": rng.random((length, 1)) < 0.5,
    }


@pytest.fixture
def episodes():
    return [frames(length, seed) for seed, length in enumerate((3, 1, 7))]


@pytest.fixture
def written(tmp_path, episodes):
    writer = DatasetWriter(tmp_path / "set", FEATURES, fps=20, robot_type="arm")
    for number, (episode, told) in enumerate(zip(episodes, ("a", "b", "a"), strict=True)):
        writer.add_episode(f"one-{number}", episode, told, {"seed": number})
    return writer.finish()


def test_what_was_written_is_read(written, episodes):
    folder = LeRobotFolder(written)
    assert (len(folder), folder.num_frames, folder.fps) == (3, 11, 20)
    assert folder.features == FEATURES
    assert [episode.instruction for episode in folder] == ["a", "b", "a"]
    for episode, given in zip(folder, episodes, strict=True):
        assert set(episode.frames) == set(given)
        for name, values in given.items():
            np.testing.assert_array_equal(episode.frames[name], values)
            assert episode.frames[name].dtype == values.dtype


def test_statistics_are_those_of_numpy(written, episodes):
    found = LeRobotFolder(written).statistics
    whole = {name: np.concatenate([one[name] for one in episodes]) for name in FEATURES}
    pixels = whole["observation.image"].reshape(-1, 3) / 255
    for name, values in (("action", whole["action"]), ("observation.image", pixels)):
        shape = (3, 1, 1) if name == "observation.image" else (2,)
        expected = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0)}
        expected["std"] = values.std(0)
        for quantile in ("q01", "q10", "q50", "q90", "q99"):
            expected[quantile] = np.quantile(values, int(quantile[1:]) / 100, axis=0)
        assert set(found[name]) == {*expected, "count"}
        for key, wanted in expected.items():
            np.testing.assert_allclose(found[name][key], wanted.reshape(shape), atol=1e-12)
        np.testing.assert_array_equal(found[name]["count"], [11])


def test_files_are_as_lerobot_lays_them_out(written):
    info = json.loads((written / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["splits"] == {"train": "0:3"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 11, 2)
    assert info["video_path"] is None
    data = pq.read_table(written / "data/chunk-000/file-000.parquet")
    assert data["index"].to_pylist() == list(range(11))
    assert data["frame_index"].to_pylist() == [0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6]
    assert data["task_index"].to_pylist() == [0, 0, 0, 1] + [0] * 7
    np.testing.assert_allclose(data["timestamp"].to_numpy()[:3], [0, 0.05, 0.1], rtol=1e-6)
    png = data["observation.image"][0].as_py()["bytes"]
    assert Image.open(io.BytesIO(png)).format == "PNG"
    rows = pq.read_table(written / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["tasks"] for row in rows] == [["a"], ["b"], ["a"]]
    assert [row["dataset_from_index"] for row in rows] == [0, 3, 4]
    assert [row["dataset_to_index"] for row in rows] == [3, 4, 11]
    assert [row["unidiff/seed"] for row in rows] == [0, 1, 2]
    assert rows[1]["stats/action/count"] == [1]
    assert np.shape(rows[0]["stats/observation.image/mean"]) == (3, 1, 1)


def test_pandas_finds_the_instruction_as_the_index_of_the_tasks(written):
    pandas = pytest.importorskip("pandas")
    tasks = pandas.read_parquet(written / "meta/tasks.parquet")
    assert list(tasks.index) == ["a", "b"]
    assert list(tasks["task_index"]) == [0, 1]


def test_the_package_datasets_reads_the_frames(written, episodes, tmp_path):
    datasets = pytest.importorskip("datasets")
    path = str(written / "data/chunk-000/file-000.parquet")
    frame = datasets.Dataset.from_parquet(path, cache_dir=str(tmp_path / "cache"))[4]
    np.testing.assert_array_equal(
        np.asarray(frame["observation.image"]), episodes[2]["observation.image"][0]
    )
    np.testing.assert_allclose(frame["action"], episodes[2]["action"][0])


def test_large_data_go_to_several_files_and_are_read_back(tmp_path, episodes, monkeypatch):
    monkeypatch.setattr(writer_module, "FILE_MEGABYTES", 0)
    writer = DatasetWriter(tmp_path / "many", FEATURES, fps=20)
    for number, episode in enumerate(episodes):
        writer.add_episode(str(number), episode, "go")
    folder = LeRobotFolder(writer.finish())
    assert len(list((folder.folder / "data").rglob("*.parquet"))) == 3
    for number in (2, 0, 1):
        np.testing.assert_array_equal(
            folder.episode(number).frames["action"], episodes[number]["action"]
        )


def test_row_groups_that_cut_episodes_are_read_too(written, episodes):
    path = written / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for size in (2, 4, 100):
        pq.write_table(table, path, row_group_size=size)
        for episode, given in zip(LeRobotFolder(written), episodes, strict=True):
            np.testing.assert_array_equal(episode.frames["action"], given["action"])


def test_nothing_lies_under_the_final_name_before_it_is_whole(tmp_path, episodes, monkeypatch):
    writer = DatasetWriter(tmp_path / "set", FEATURES, fps=20)
    writer.add_episode("one", episodes[0], "go")
    assert not (tmp_path / "set").exists()

    def fail(*arguments):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_json", fail)
        with pytest.raises(OSError, match="the disk is full"):
            writer.finish()
    assert not (tmp_path / "set").exists()
    assert len(LeRobotFolder(writer.finish())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
