"""pytest plugins/vla/tests/test_recorder.py"""

import numpy as np
import pytest
from unidiff_vla.environments.tabletop_env import TabletopEnv
from unidiff_vla.lerobot_dataset import (
    FRESH,
    DatasetWriter,
    LeRobotFolder,
    camera_features,
    fresh_frames,
    stream_samples,
)
from unidiff_vla.recorded_examples import RecordedExamples
from unidiff_vla.recording import RandomWalk, features_of, record_demonstrations
from unidiff_vla.training import read_recordings


def test_failures_are_dropped_and_counted(new_writer, line):
    writer = new_writer()
    report = record_demonstrations(line, writer, "line", 6)
    assert (report.num_kept, report.num_failed, report.num_resumed) == (6, 1, 0)
    folder = LeRobotFolder(writer.finish())
    assert len(folder) == 6
    assert report.num_frames == folder.num_frames
    assert folder.info["unidiff"]["num_failed"] == 1


def test_an_interrupted_recording_goes_on_and_ends_as_if_it_had_not_been(new_writer, line):
    whole = new_writer("whole")
    record_demonstrations(line, whole, "line", 6)

    class Stopped(Exception):  # noqa: N818
        pass

    def interrupt(report):
        if report.num_kept + report.num_failed == 5:
            raise Stopped

    with pytest.raises(Stopped):
        record_demonstrations(line, new_writer("halves"), "line", 6, on_progress=interrupt)
    resumed = new_writer("halves")
    num_resets = line.num_resets
    report = record_demonstrations(line, resumed, "line", 6)
    assert (report.num_kept, report.num_failed, report.num_resumed) == (6, 1, 5)
    assert line.num_resets == num_resets + 2  # two attempts were left
    for one, other in zip(
        LeRobotFolder(whole.finish()), LeRobotFolder(resumed.finish()), strict=True
    ):
        assert one.instruction == other.instruction
        for name, values in one.frames.items():
            np.testing.assert_array_equal(values, other.frames[name])


def test_a_line_cut_short_by_a_crash_costs_that_attempt_alone(new_writer, line):
    writer = new_writer()
    record_demonstrations(line, writer, "line", 3)
    log = writer.staging.folder / "attempts.jsonl"
    log.write_text(log.read_text()[:-9])
    report = record_demonstrations(line, new_writer(), "line", 3)
    assert (report.num_kept, report.num_resumed) == (3, 2)
    assert log.read_text().count("\n") == 3


def test_a_recording_is_resumed_with_the_same_settings_only(new_writer):
    new_writer(noise=0.3)
    with pytest.raises(ValueError, match="recording of another plan; found and wanted"):
        new_writer(noise=0.1)


def test_progress_is_told_after_each_attempt(new_writer, line):
    told = []
    record_demonstrations(line, new_writer(), "line", 2, first_seed=3, on_progress=told.append)
    assert [(report.num_kept, report.num_failed) for report in told] == [(1, 0), (1, 1), (2, 1)]


def test_an_expert_that_fails_nearly_always_ends_the_recording(new_writer, line):
    line.expert = lambda: lambda: np.zeros(2)
    with pytest.raises(ValueError, match="22 attempts at line failed and 0 succeeded"):
        record_demonstrations(line, new_writer(), "line", 1, noise=np.zeros(2))


def test_several_cameras_have_names_of_their_own(line):
    observe = line.observe
    shot = np.zeros((2, 2, 3), np.uint8)
    line.observe = lambda: {**observe(), "image": {"left": shot, "hand": shot}}
    names = set(features_of(line))
    assert names == {
        "observation.images.left",
        "observation.images.hand",
        "observation.state",
        "action",
    }


def test_arguments_out_of_range_are_refused(new_writer, line):
    with pytest.raises(ValueError, match="a name without '/'"):
        record_demonstrations(line, new_writer(), "a/b", 1)
    with pytest.raises(ValueError, match="first_seed >= 0"):
        record_demonstrations(line, new_writer(), "line", 1, first_seed=-1)


def test_frames_without_a_picture_of_their_own_are_marked_and_left_out(tmp_path):
    env = TabletopEnv("reach")
    bare = DatasetWriter(tmp_path / "bare", features_of(env), fps=10)
    with pytest.raises(ValueError, match="marks_fresh=True"):
        record_demonstrations(env, bare, "reach", 1, look_every=4)
    writer = DatasetWriter(tmp_path / "set", features_of(env, marks_fresh=True), fps=10)
    record_demonstrations(env, writer, "reach", 2, look_every=4)
    folder = LeRobotFolder(writer.finish())
    fresh = [fresh_frames(one) for one in folder]
    marks = folder.episode(0, [FRESH])  # and no picture is decoded for them
    assert set(marks.frames) == {FRESH}
    np.testing.assert_array_equal(fresh_frames(marks), fresh[0])
    recordings = read_recordings([folder.folder], 8)
    np.testing.assert_array_equal(recordings.is_fresh, np.concatenate(fresh))
    number = int(recordings.is_fresh.sum())
    assert number < len(recordings) / 2
    pictures = [
        one.frames["observation.image"][here] for one, here in zip(folder, fresh, strict=True)
    ]
    np.testing.assert_array_equal(recordings.pictures["image"], np.concatenate(pictures))
    assert len(list(stream_samples(folder, 8))) == number
    examples = RecordedExamples(folder)
    assert len(examples) == number
    second = int(np.flatnonzero(fresh[0])[1])
    np.testing.assert_array_equal(
        examples[1]["image"], folder.episode(0).frames["observation.image"][second]
    )
    np.testing.assert_array_equal(
        examples[1]["action"], folder.episode(0).frames["action"][second:]
    )


def test_a_walk_is_asked_for_through_the_recorder(new_writer, line):
    options = {"first_seed": 1, "noise": np.zeros(2)}
    still = new_writer("still")
    record_demonstrations(line, still, "line", 1, **options)
    walked = new_writer("walked")
    record_demonstrations(line, walked, "line", 1, lead=RandomWalk(8), **options)
    starts = [
        next(iter(LeRobotFolder(one.finish()))).frames["observation.state"][0]
        for one in (still, walked)
    ]
    assert abs(starts[0] - starts[1]) > 0.01


def test_attempts_without_need_of_an_expert_are_no_failures(new_writer, line):
    def lead(env, begin, seed):
        return begin() if seed % 2 else None

    writer = new_writer()
    report = record_demonstrations(line, writer, "line", 2, lead=lead)
    assert (report.num_kept, report.num_failed, report.num_skipped) == (2, 0, 2)
    again = record_demonstrations(line, new_writer(), "line", 2, lead=lead)
    assert (again.num_kept, again.num_skipped, again.num_resumed) == (2, 2, 4)


def test_a_lead_that_leaves_nothing_to_do_is_said_in_the_end(new_writer, line):
    def lead(env, begin, seed):
        return begin() if seed == 150 else None

    with pytest.raises(ValueError, match=r"200 layouts of line in a row .* with 1 of 2"):
        record_demonstrations(line, new_writer(), "line", 2, lead=lead)


def test_an_attempt_that_breaks_off_is_noted_and_the_next_one_made(new_writer, line):
    reset = line.reset

    def breaking(*, seed=None, options=None):
        if seed == 1:
            raise RuntimeError("the simulation has come apart")
        return reset(seed=seed, options=options)

    line.reset = breaking
    writer = new_writer()
    report = record_demonstrations(line, writer, "line", 2)
    assert (report.num_kept, report.num_failed) == (2, 1)
    assert "come apart" in writer.staging.attempts["line-00000001"].facts["error"]


def test_a_single_camera_keeps_its_name(new_writer, line):
    writer = new_writer(cameras=["front"])
    record_demonstrations(line, writer, "line", 1)
    folder = LeRobotFolder(writer.finish())
    assert camera_features(folder) == {"front": "observation.image"}
