"""pytest plugins/vla/tests/test_dataset_errors.py

`dataset` has six episodes of the line; each test breaks one thing and reads what is said of it.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unidiff_vla.lerobot_dataset import DatasetWriter, Feature, LeRobotFolder

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def change_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_column(path, name, values):
    table = pq.read_table(path)
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, values), path)


@pytest.mark.parametrize(
    ("missing", "purpose"),
    [
        ("meta/info.json", "features and counts"),
        ("meta/stats.json", "statistics for normalisation"),
        ("meta/tasks.parquet", "instructions by task_index"),
        (EPISODES, "table of episodes"),
    ],
)
def test_a_missing_file_of_the_description_is_named(dataset, missing, purpose):
    (dataset / missing).unlink()
    with pytest.raises(FileNotFoundError, match=purpose):
        LeRobotFolder(dataset)


def test_a_missing_file_of_data_is_named(dataset):
    folder = LeRobotFolder(dataset)
    (dataset / DATA).unlink()
    with pytest.raises(FileNotFoundError, match="which holds episode 0; restore"):
        folder.episode(0)


def test_broken_json_and_another_version_are_refused(dataset):
    path = dataset / "meta/info.json"
    change_json(path, lambda info: info.update(codebase_version="v2.1"))
    with pytest.raises(ValueError, match=r"version v3\.x; got v2\.1"):
        LeRobotFolder(dataset)
    path.write_text("{")
    with pytest.raises(ValueError, match="expected JSON in"):
        LeRobotFolder(dataset)


def test_missing_statistics_are_named(dataset):
    change_json(dataset / "meta/stats.json", lambda found: found["action"].pop("q99"))
    with pytest.raises(ValueError, match=r"statistics \['q99'\] of 'action'.*compute them again"):
        LeRobotFolder(dataset)


def test_videos_are_refused_with_what_to_do(dataset):
    def change(info):
        info["features"]["observation.image"]["dtype"] = "video"

    change_json(dataset / "meta/info.json", change)
    with pytest.raises(ValueError, match="convert the data set to images"):
        LeRobotFolder(dataset)


def test_a_gap_in_the_table_of_episodes_is_named(dataset):
    path = dataset / EPISODES
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(0, 2), table.slice(3)]), path)
    with pytest.raises(ValueError, match="expected episode 2 to begin at frame"):
        LeRobotFolder(dataset)
    pq.write_table(table.slice(0, 5), path)
    with pytest.raises(ValueError, match="expected 6 episodes and"):
        LeRobotFolder(dataset)
    pq.write_table(table.drop_columns(["length"]), path)
    with pytest.raises(ValueError, match=r"expected the columns \['length'\]"):
        LeRobotFolder(dataset)


def test_missing_frames_at_the_end_are_counted(dataset):
    table = pq.read_table(dataset / DATA)
    pq.write_table(table.slice(0, len(table) - 2), dataset / DATA)
    with pytest.raises(ValueError, match=r"episode 5 of .*: expected \d+ frames, .*the data hold"):
        LeRobotFolder(dataset).episode(5)


@pytest.mark.parametrize("name", ["frame_index", "episode_index", "index"])
def test_indices_that_are_not_contiguous_are_named(dataset, name):
    values = pq.read_table(dataset / DATA)[name].to_pylist()
    values[1] += 1
    change_column(dataset / DATA, name, pa.array(values))
    with pytest.raises(ValueError, match=rf"expected {name} \d+ in frame 1; got .*out of order"):
        LeRobotFolder(dataset).episode(0)


def test_timestamps_of_another_rate_are_refused(dataset):
    change_json(dataset / "meta/info.json", lambda info: info.update(fps=30))
    with pytest.raises(ValueError, match="timestamps of 30 frames per second"):
        LeRobotFolder(dataset).episode(0)


def test_timestamps_that_are_no_numbers_are_refused(dataset):
    times = pq.read_table(dataset / DATA)["timestamp"].to_numpy().copy()
    times[1] = np.nan
    change_column(dataset / DATA, "timestamp", pa.array(times))
    with pytest.raises(ValueError, match="frame 1 is nan s off"):
        LeRobotFolder(dataset).episode(0)


def test_wrong_shapes_are_named(dataset):
    length = len(pq.read_table(dataset / DATA))
    change_column(dataset / DATA, "action", pa.array([[1.0, 2.0, 3.0]] * length))
    with pytest.raises(ValueError, match=r"expected 2 numbers in every frame of 'action'"):
        LeRobotFolder(dataset).episode(0)


def test_pictures_of_another_size_or_that_are_none_are_named(dataset):
    def change(info):
        info["features"]["observation.image"]["shape"] = [8, 6, 3]

    info = (dataset / "meta/info.json").read_text()
    change_json(dataset / "meta/info.json", change)
    with pytest.raises(ValueError, match=r"pictures of \(8, 6, 3\) in 'observation.image'"):
        LeRobotFolder(dataset).episode(0)
    (dataset / "meta/info.json").write_text(info)
    length = len(pq.read_table(dataset / DATA))
    for shot, message in (({"bytes": b"no"}, "readable picture"), ({"path": "a.png"}, "embed")):
        column = pa.array([{"bytes": None, "path": None, **shot}] * length)
        change_column(dataset / DATA, "observation.image", column)
        with pytest.raises(ValueError, match=message):
            LeRobotFolder(dataset).episode(0)


def test_missing_values_and_columns_are_named(dataset):
    table = pq.read_table(dataset / DATA)
    states = table["observation.state"].to_pylist()
    change_column(dataset / DATA, "observation.state", pa.array([None, *states[1:]]))
    with pytest.raises(ValueError, match=r"a value in every frame of 'observation\.state'; 1 of"):
        LeRobotFolder(dataset).episode(0)
    pq.write_table(table.drop_columns(["action"]), dataset / DATA)
    with pytest.raises(ValueError, match="expected a column 'action'"):
        LeRobotFolder(dataset).episode(0)


def test_numbers_that_are_not_finite_are_named(dataset):
    values = np.array(pq.read_table(dataset / DATA)["action"].to_pylist(), dtype=np.float32)
    values[2, 1] = np.nan
    change_column(dataset / DATA, "action", pa.FixedSizeListArray.from_arrays(values.ravel(), 2))
    with pytest.raises(ValueError, match="finite numbers in 'action'; frame 2 holds"):
        LeRobotFolder(dataset).episode(0)


def test_an_unknown_task_is_named(dataset):
    length = len(pq.read_table(dataset / DATA))
    change_column(dataset / DATA, "task_index", pa.array([7] * length))
    with pytest.raises(ValueError, match=r"task_index in \[0, 2\).*got 7"):
        LeRobotFolder(dataset).episode(0)
    change_column(dataset / DATA, "task_index", pa.array([0] + [1] * (length - 1)))
    with pytest.raises(ValueError, match=r"one task_index in all frames .* got \[0, 1\]"):
        LeRobotFolder(dataset).episode(0)
    pq.write_table(
        pa.table({"task_index": [0, 2], "task": ["a", "b"]}), dataset / "meta/tasks.parquet"
    )
    with pytest.raises(ValueError, match="task_index 0, 1, 2"):
        LeRobotFolder(dataset)
    pq.write_table(pa.table({"task_index": [0, 1]}), dataset / "meta/tasks.parquet")
    with pytest.raises(ValueError, match="one column of sentences"):
        LeRobotFolder(dataset)


def test_a_number_of_no_episode_is_an_index_error(dataset):
    for number in (-1, 6):
        with pytest.raises(IndexError, match=r"episode in \[0, 6\)"):
            LeRobotFolder(dataset).episode(number)


def episode(**changes):
    frames = {"state": np.zeros((4, 2), np.float32), "action": np.zeros((4, 1), np.float32)}
    return {**frames, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": np.zeros((4, 1))}, r"unknown \['extra'\]"),
        ({"state": np.zeros((4, 3), np.float32)}, r"'state' as \(T, 2\) float32; got \(4, 3\)"),
        ({"state": np.zeros((4, 2))}, "got .* float64"),
        ({"action": np.zeros((3, 1), np.float32)}, "one length >= 1 of all features"),
        ({"action": np.full((4, 1), np.inf, np.float32)}, "finite numbers in 'action'; frame 0"),
    ],
)
def test_frames_that_do_not_fit_are_not_written(tmp_path, changes, message):
    features = {"state": Feature("float32", (2,)), "action": Feature("float32", (1,))}
    writer = DatasetWriter(tmp_path / "set", features, fps=10)
    with pytest.raises(ValueError, match=message):
        writer.add_episode("one", episode(**changes), "go")
    assert not list(writer.staging.folder.glob("episodes/*"))
    assert writer.staging.attempts == {}


def test_a_writer_refuses_what_cannot_become_a_data_set(tmp_path):
    features = {"state": Feature("float32", (2,)), "action": Feature("float32", (1,))}
    writer = DatasetWriter(tmp_path / "set", features, fps=10)
    with pytest.raises(ValueError, match="no episode was kept"):
        writer.finish()
    with pytest.raises(ValueError, match="expected an instruction of episode 'one'"):
        writer.add_episode("one", episode(), "")
    with pytest.raises(ValueError, match=r"missing \['action'\]"):
        writer.add_episode("one", {"state": np.zeros((4, 2), np.float32)}, "go")
    writer.add_episode("one", episode(), "go")
    writer.finish()
    with pytest.raises(FileExistsError, match="choose another name"):
        DatasetWriter(tmp_path / "set", features, fps=10)
    with pytest.raises(ValueError, match="expected fps >= 1"):
        DatasetWriter(tmp_path / "other", features, fps=0)
    with pytest.raises(ValueError, match=r"\['timestamp'\] are filled in by the writer"):
        DatasetWriter(tmp_path / "other", {"timestamp": Feature("float32", (1,))}, fps=1)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("image", (3,)), ("float32", (2, 2)), ("string", (1,)), ("float32", ())]
)
def test_features_that_are_not_read_are_refused(dtype, shape):
    with pytest.raises(ValueError, match="expected a feature of dtype image"):
        Feature(dtype, shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda info: info.pop("fps"), r"'fps' \(Real\)"),
        (lambda info: info.update(fps=0), "fps > 0"),
        (lambda info: info.update(features=[]), r"'features' \(dict\)"),
        (lambda info: info["features"]["action"].pop("shape"), "dtype and shape of 'action'"),
        (lambda info: info.pop("total_episodes"), r"'total_episodes' \(int\)"),
        (lambda info: info.update(data_path="data/{place}.parquet"), "places {chunk_index}"),
    ],
)
def test_a_description_that_lacks_something_is_refused(dataset, change, words):
    change_json(dataset / "meta/info.json", change)
    with pytest.raises(ValueError, match=words):
        LeRobotFolder(dataset)


def test_json_that_is_no_object_is_refused(dataset):
    (dataset / "meta/info.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected a JSON object"):
        LeRobotFolder(dataset)


def test_damaged_data_name_episode_and_file(dataset):
    path = dataset / DATA
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"episode 0 of .*, in file-000\.parquet"):
        LeRobotFolder(dataset).episode(0)
