"""pytest plugins/vla/tests/test_task.py: the contract, training rows, what data become."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from unidiff_vla.recorded_examples import RecordedExamples, read_recorded
from unidiff_vla.task import VlaTask, chunk_of, mean_absolute_error

from unidiff.bundled import bundled_checkpoint
from unidiff.data.blocks import IGNORED
from unidiff.data.examples import load_examples
from unidiff.plugins import PluginContract
from unidiff.tokens.dct import DctTokenizer
from unidiff.tokens.processor import UniDiffProcessor


class TestContract(PluginContract):
    plugin_name = "vla"


@pytest.fixture(scope="module")
def processor():
    return UniDiffProcessor.from_pretrained(bundled_checkpoint())


@pytest.fixture(scope="module")
def example():
    return VlaTask().dataset("train", 3)[2]


def row_of(processor, example):
    return VlaTask().training_row(processor, example, np.random.default_rng(0))


@pytest.mark.parametrize("cameras", [1, 2])
def test_a_request_is_that_of_for_action(processor, example, cameras):
    image = example["image"]
    if cameras == 2:
        image = {"side": image, "front": image[::-1].copy()}
    built = VlaTask().build(processor, {**example, "image": image})
    wanted = processor.for_action(image, example["state"], example["instruction"])
    assert set(built) == set(wanted)
    assert all((built[name] == wanted[name]).all() for name in wanted)


def test_a_longer_recording_is_cut_at_the_horizon(processor, example):
    longer = np.concatenate([example["action"], np.ones((5, 2), np.float32)])
    row, cut = row_of(processor, example), row_of(processor, {**example, "action": longer})
    assert np.array_equal(row.input_ids, cut.input_ids)
    assert (row.labels != IGNORED).sum() == 16


def test_nothing_is_learnt_beyond_the_recording(processor, example):
    whole = row_of(processor, example)
    is_pad = np.arange(8) >= 3
    for ended in ({"action": example["action"][:3]}, {"action_is_pad": is_pad}):
        row = row_of(processor, {**example, **ended})
        assert (row.labels != IGNORED).sum() == 6
        assert len(row) == len(whole) - 10
        assert np.array_equal(row.input_ids, whole.input_ids[: len(row)])
        assert np.array_equal(row.position_ids, whole.position_ids[:, : len(row)])


def test_with_coefficients_the_last_action_is_held(example):
    processor = UniDiffProcessor.from_pretrained(bundled_checkpoint())
    processor.action_bins = DctTokenizer.fit(np.stack([example["action"]] * 3), num_bins=256)
    held = np.concatenate([example["action"][:3], example["action"][[2] * 5]])
    row = row_of(processor, {**example, "action": example["action"][:3]})
    assert np.array_equal(row.input_ids, row_of(processor, {**example, "action": held}).input_ids)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"action": np.zeros((8, 4))}, r"shape \(n >= 1, 2\)"),
        ({"action": np.zeros((0, 2))}, r"shape \(n >= 1, 2\)"),
        ({"action": np.full((8, 2), np.nan)}, "finite"),
        ({"action_is_pad": np.ones(8, bool)}, "the first False"),
        ({"state": np.full(2, np.inf)}, "finite"),
    ],
)
def test_a_bad_example_is_refused(processor, example, wrong, words):
    with pytest.raises(ValueError, match=words):
        row_of(processor, {**example, **wrong})


def test_error_is_measured_in_ranges_and_where_something_was_recorded():
    examples = [{"action": np.array([[0.0, 1.0], [4.0, 1.0]])}, {"action": np.array([[2.0, 1.0]])}]
    planned = [np.array([[1.0, 1.0], [4.0, 1.0]]), np.array([[2.0, 1.5], [99.0, 99.0]])]
    # Ranges 4 and, of a constant dimension, 1; the second example's second row is no recording.
    assert np.allclose(mean_absolute_error(planned, examples), [0.25 / 4, 0.5 / 2])


def test_the_two_splits_share_no_table():
    train, test = VlaTask().dataset("train", 30), VlaTask().dataset("test", 30)
    seen = {one["image"].tobytes() for one in train}
    assert not any(one["image"].tobytes() in seen for one in test)
    assert VlaTask().dataset("test", 0) == ()
    with pytest.raises(ValueError, match="split must be"):
        VlaTask().dataset("validation")


def test_frames_of_a_lerobot_folder_are_examples(dataset):
    found = VlaTask().read(str(dataset))
    episodes = list(found._folder)
    assert len(found) == sum(map(len, episodes))
    last = found[len(episodes[0]) - 1]
    assert np.array_equal(last["action"], episodes[0].frames["action"][-1:])
    first = found[len(episodes[0])]
    assert np.array_equal(first["action"], episodes[1].frames["action"])
    assert np.array_equal(first["image"], episodes[1].frames["observation.image"][0])
    assert first["instruction"] == episodes[1].instruction
    chunk, is_pad = chunk_of(last, 4, 2)
    assert chunk.shape == (4, 2)
    assert is_pad.tolist() == [False, True, True, True]


def test_a_part_of_a_folder_reads_only_its_episodes(dataset, monkeypatch):
    found = VlaTask().read(str(dataset), 7)
    assert isinstance(found, RecordedExamples)
    assert len(found) == 7
    read = []
    original = type(found._folder).episode
    monkeypatch.setattr(
        type(found._folder), "episode", lambda self, n: read.append(n) or original(self, n)
    )
    part = found[2:5]
    assert not read
    assert np.array_equal(part[-1]["state"], found[4]["state"])
    assert read == [0]


def test_what_is_no_such_folder_is_left_to_others(tmp_path):
    assert read_recorded(str(tmp_path)) is None
    assert read_recorded("someone/dataset") is None


def test_a_folder_without_pictures_is_refused(dataset):
    path = dataset / "meta" / "info.json"
    info = json.loads(path.read_text())
    del info["features"]["observation.image"]
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"lacks the features \['observation.image or"):
        VlaTask().read(str(dataset))


def test_rows_of_a_file_are_examples(processor, example, tmp_path):
    from PIL import Image

    Image.fromarray(example["image"]).save(tmp_path / "seen.png")
    row = {
        "image": "seen.png",
        "state": example["state"].tolist(),
        "instruction": example["instruction"],
        "action": example["action"].tolist(),
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (loaded,) = load_examples(tmp_path / "rows.jsonl", VlaTask.columns)
    assert np.array_equal(row_of(processor, loaded).labels, row_of(processor, example).labels)


def test_codes_of_one_picture_are_no_cameras(processor, example):
    codes = {"codes": processor.image_codes(example["image"])}
    (turn,) = VlaTask().messages({**example, "image": codes})
    assert [part["type"] for part in turn["content"]] == ["image", "state", "text"]
    assert VlaTask().evaluation().settings["envs"]
    assert SimpleNamespace(**VlaTask.columns).action


def test_actions_and_states_in_other_units_are_refused(processor, example):
    with pytest.raises(ValueError, match=r"action .* far outside the checkpoint's range"):
        row_of(processor, {**example, "action": 100 + example["action"]})
    with pytest.raises(ValueError, match=r"state .* far outside"):
        row_of(processor, {**example, "state": np.array([300.0, 400.0], np.float32)})
