"""A policy trained on a tiny recorded data set: rows, one resumable run, a folder that drives."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from unidiff_vla.environments.instructions import instructions_of
from unidiff_vla.lerobot_dataset import DatasetWriter, Feature
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings, load_policy
from unidiff_vla.policy.observations import ObservationEncoder
from unidiff_vla.training import assemble_policy, read_recordings, train_policy
from unidiff_vla.training.objectives import policy_blocks
from unidiff_vla.training.run import RUN_FOLDER
from unidiff_vla.training.source import Recorded
from unidiff_vla.units import is_absurd

from unidiff.bundled import bundled_checkpoint
from unidiff.data.tasks import RowMaker
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.training.trainer import AVERAGE_FILE, newest_checkpoint

from .coded_frames import coded
from .tiny_run import CAMERAS, SETTINGS, TINY, an_observation, write_set

TOKENIZER = AutoTokenizer.from_pretrained(bundled_checkpoint())


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = newest_checkpoint(run / RUN_FOLDER, needs_average=True)
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-4"
    return load_file(checkpoint / AVERAGE_FILE)


def test_recordings_are_read_camera_by_camera(recorded: Path) -> None:
    seen: list[tuple[int, int]] = []
    recordings = read_recordings([recorded], 2, lambda done, total: seen.append((done, total)))
    assert len(recordings) == 45
    assert set(recordings.cameras) == set(CAMERAS)
    assert recordings.pictures["side"].shape == (45, 16, 16, 3)
    assert recordings.chunks.shape == (45, 2, 2)
    assert np.array_equal(recordings.chunks[0, 1], recordings.chunks[1, 0])
    assert np.array_equal(recordings.chunks[4, 1], recordings.chunks[4, 0])  # the episode's end
    told = recordings.instructions[recordings.instruction_index[5]]
    assert told in instructions_of("push")
    assert seen[-1] == (9, 9)


def test_several_data_sets_are_read_as_one(recorded: Path, tmp_path: Path) -> None:
    again = instructions_of("push")[0]
    more = write_set(tmp_path / "more", again), write_set(tmp_path / "other", "wave")
    seen: list[tuple[int, int]] = []
    joined = read_recordings([recorded, *more], 2, lambda done, total: seen.append((done, total)))
    alone = read_recordings([recorded], 2)
    assert seen[-1] == (11, 11)
    assert joined.episode_index[-4:].tolist() == [9, 9, 10, 10]
    told = [joined.instructions[one] for one in joined.instruction_index[[5, 45, 48]]]
    assert told == [again, again, "wave"]
    assert len(joined.instructions) == len(set(joined.instructions)) == 10
    assert np.array_equal(joined.pictures["front"][:45], alone.pictures["front"])
    assert (joined.pictures["front"][45:] == 1).all()
    assert np.array_equal(joined.chunks[:45], alone.chunks)


def test_an_absurd_action_is_refused_by_episode_frame_and_dimension(
    recorded: Path, tmp_path: Path
) -> None:
    def with_action(name: str, values: list[list[float]]) -> Path:
        return write_set(tmp_path / name, "wave", actions=values)

    absurd = with_action("absurd", [[0.5, 0.5], [0.5, -1e30]])
    words = r"episode 0, frame 1 of .*absurd: dimension 1 of the action is -1e\+30"
    with pytest.raises(ValueError, match=words):
        read_recordings([recorded, absurd], 2)
    far = with_action("far", [[100.0, 0.5], [0.5, 0.5]])  # unusual, but of the same world
    assert read_recordings([recorded, far], 2).chunks.max() == 100


def test_a_gripper_that_rarely_moves_is_not_absurd() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (400, 3))
    actions[:, 1] = 0.0
    actions[17, 1] = 1.0
    actions[:, 2] *= 1e-9
    actions[18, 2] = -1.0
    assert not is_absurd(actions).any()
    assert not is_absurd(actions[:, 1:2]).any()  # nothing says what is wide
    actions[19, 1] = 1e3
    assert np.argwhere(is_absurd(actions)).tolist() == [[19, 1]]


def test_data_sets_that_differ_are_refused_by_name(recorded: Path, tmp_path: Path) -> None:
    wide = write_set(tmp_path / "wide", "go", width=4)
    with pytest.raises(ValueError, match=r"'observation\.state' as in .*set, .*wide has"):
        read_recordings([recorded, wide], 2)
    large = write_set(tmp_path / "large", "go", size=32)
    with pytest.raises(ValueError, match=r"large has"):
        read_recordings([recorded, large], 2)
    turned = write_set(tmp_path / "turned", "go", cameras=("front", "side"))
    with pytest.raises(ValueError, match=r"expected the cameras \['side', 'front'\]"):
        read_recordings([recorded, turned], 2)
    with pytest.raises(ValueError, match="at least one data set"):
        read_recordings([], 2)
    with pytest.raises(ValueError, match="expected a list of folders"):
        read_recordings(str(recorded), 2)


def test_a_data_set_without_pictures_is_refused(tmp_path: Path) -> None:
    features = {"observation.state": Feature("float32", (3,)), "action": Feature("float32", (2,))}
    writer = DatasetWriter(tmp_path / "blind", features, fps=10)
    frames = {"observation.state": np.zeros((3, 3), "f4"), "action": np.zeros((3, 2), "f4")}
    writer.add_episode("one", frames, "go")
    writer.finish()
    with pytest.raises(ValueError, match="lacks the features"):
        read_recordings([tmp_path / "blind"], 2)


def test_the_picture_after_the_chunk_shares_its_canvas(run: Path) -> None:
    processor = UniDiffProcessor.from_pretrained(
        assemble_policy(run, run.with_name("foreseen"), SETTINGS)
    )
    layout = processor.layout  # pictures of 8 x 8 codes, chunks of two timesteps
    maker = RowMaker(SequenceEncoder(processor.tokenizer, layout), policy_blocks("masked"))
    frames = replace(
        coded(("open it", "pull it", "push it", "shut it", "shut it"), (0, 0, 1, 2, 2)),
        pictures=np.arange(5)[:, None, None] + np.array([[[0], [4]]]) + np.zeros((5, 2, 64), int),
        episode_index=np.array([0, 0, 0, 0, 1]),
    )
    canvas = ObservationEncoder(processor, replace(SETTINGS, foresees=True))([an_observation()])
    source = Recorded(maker, frames, future_share=1.0)
    for index, after in enumerate((2, 3, 3, 3, 4)):  # two steps on, at most the episode's last
        row = source.row(index, np.random.default_rng(0))
        here = row.block_ids == 0
        assert np.array_equal(here, row.block_ids >= 0)
        assert row.modality_ids[here].tolist() == canvas["canvas_modality_ids"][0].tolist()
        assert np.array_equal(row.labels[here] < 0, canvas["pinned_mask"][0].numpy())
        codes = layout.decode("image", row.input_ids[here][:64])
        assert (codes == after).all()  # of the first camera; the second's are 4 more
    kept = Recorded(maker, frames, still_share=0.99, future_share=1.0)
    row = kept.row(0, np.random.default_rng(0))  # it keeps still, and sees what it saw
    assert (layout.decode("image", row.input_ids[row.block_ids == 0][:64]) == 0).all()
    half = Recorded(maker, frames, future_share=0.5)
    sizes = [(half.row(0, np.random.default_rng(k)).block_ids >= 0).sum() for k in range(200)]
    assert set(sizes) == {4, 64 + 2 + 4}
    assert np.mean(np.array(sizes) > 4) == pytest.approx(0.5, abs=0.1)


def test_a_policy_that_foresees_plans_with_and_without_it(
    coded_run: Callable[[Path], Path], recorded: Path, tmp_path: Path
) -> None:
    own = coded_run(tmp_path / "run")
    train_policy([recorded], own, replace(TINY, future_share=0.5), note=lambda text: None)
    folder = assemble_policy(own, tmp_path / "policy", replace(SETTINGS, foresees=True))
    policy, seen = MaskedDiffusionPolicy.from_pretrained(folder), an_observation()
    chunk = policy.predict_action_chunk([seen, seen], max_denoising_steps=5)
    record = policy.last_record
    assert chunk.shape == (2, 2, 2)
    assert [one.size for one in record.futures] == [(16, 16)] * 2
    assert record.num_forwards == (5, 5)
    for trace, confidence in zip(record.traces, record.confidence.reshape(2, 4), strict=True):
        assert sorted(trace.index) == [0, 1, 2, 3]
        assert confidence[trace.index[0]] == trace.confidence[0]
    leftover = policy.bins.decode(np.array([[0, 3], [1, 2]]))[:1]  # one timestep under way
    pinned = policy.predict_action_chunk(seen, leftover=leftover, inference_delay=1)
    assert np.array_equal(pinned[0, :1], leftover)
    without = MaskedDiffusionPolicy(policy.model, policy.processor, SETTINGS)
    assert without.predict_action_chunk(seen).shape == (1, 2, 2)
    assert without.last_record.futures == ()


def test_what_the_weights_were_not_trained_for_is_refused(run: Path, tmp_path: Path) -> None:
    folder = assemble_policy(run, tmp_path / "policy", SETTINGS)
    said = json.loads((folder / "config.json").read_text())
    assert said["policy_training"] == {"objective": "masked", "future_share": 0.0}
    foreseeing = replace(SETTINGS, foresees=True)
    left_to_right = replace(SETTINGS, decoding={"decoding_mode": "ar"})
    with pytest.raises(ValueError, match="trained without it"):
        MaskedDiffusionPolicy.from_pretrained(folder, foreseeing)
    with pytest.raises(ValueError, match="trained with objective='masked'"):
        MaskedDiffusionPolicy.from_pretrained(folder, left_to_right)
    policy = MaskedDiffusionPolicy.from_pretrained(folder)
    with pytest.raises(ValueError, match="trained with objective='masked'"):
        policy.predict_action_chunk(an_observation(), decoding_mode="ar")
    del said["policy_training"]  # as in older folders: nobody knows, and nothing is refused
    (folder / "config.json").write_text(json.dumps(said))
    for settings in (foreseeing, left_to_right):
        old = MaskedDiffusionPolicy.from_pretrained(folder, settings)
        assert old.predict_action_chunk(an_observation()).shape == (1, 2, 2)


def test_a_run_goes_on_from_a_policy_with_the_same_ids(
    run: Path, coded_run: Callable[[Path], Path], recorded: Path, tmp_path: Path
) -> None:
    start = assemble_policy(run, tmp_path / "start", SETTINGS, dtype=torch.float32)
    frozen = replace(TINY, steps=1, warmup_steps=0, learning_rate=1e-12, decay_steps=0)
    own = coded_run(tmp_path / "further")
    notes: list[str] = []
    model = train_policy([recorded], own, frozen, start=start, note=notes.append)
    assert notes[-1].endswith("tensors of the start taken")  # the run has its image tokenizer
    stored = load_file(start / "model.safetensors")
    assert len(stored) == len(list(model.parameters()))
    for name, weight in model.named_parameters():
        assert torch.allclose(weight, stored[name], atol=1e-6), name


def test_an_interrupted_run_goes_on_to_the_same_weights(
    run: Path, recorded: Path, tmp_path: Path
) -> None:
    notes: list[str] = []

    def stop(text: str) -> None:
        notes.append(text)
        if text == "coding the pictures" and len(notes) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_policy([recorded], tmp_path / "parts", TINY, note=stop)
    train_policy([recorded], tmp_path / "parts", TINY, note=notes.append)
    for name, weight in weights_of(run).items():
        assert torch.equal(weight, weights_of(tmp_path / "parts")[name]), name


def test_another_recipe_is_refused(run: Path, recorded: Path) -> None:
    with pytest.raises(ValueError, match=r"another recipe \(learning_rate\)"):
        train_policy([recorded], run, replace(TINY, learning_rate=1e-4), note=lambda text: None)


def test_the_folder_drives(run: Path, tmp_path: Path) -> None:
    policy = MaskedDiffusionPolicy.from_pretrained(
        assemble_policy(run, tmp_path / "policy", SETTINGS)
    )
    seen = an_observation()
    chunk = policy.predict_action_chunk(seen)
    assert chunk.shape == (1, 2, 2)
    assert policy.model.config.trained_on_visible
    policy.predict_action_chunk(seen, revision="secondary")  # such weights know visible tokens
    assert (tmp_path / "policy" / "training_log.json").is_file()


@pytest.mark.parametrize(
    ("objective", "decoding", "num_forwards"),
    [
        ("parallel", {"do_sample": False, "max_denoising_steps": 1}, 1),
        ("ar", {"do_sample": False, "decoding_mode": "ar"}, 4),
        ("regression", {}, 1),
    ],
)
def test_a_baseline_is_trained_on_the_same_codes_and_decoded_as_trained(
    objective: str,
    decoding: dict[str, object],
    num_forwards: int,
    coded_run: Callable[[Path], Path],
    recorded: Path,
    tmp_path: Path,
) -> None:
    own = coded_run(tmp_path / "run")
    recipe = replace(TINY, objective=objective, steps=2)
    model = train_policy([recorded], own, recipe, note=lambda text: None)
    wanted = replace(SETTINGS, decoding={**SETTINGS.decoding, "revision": "secondary"})
    folder = assemble_policy(own, tmp_path / "policy", wanted, dtype=torch.float32)
    policy = load_policy(folder)
    assert policy.settings == replace(SETTINGS, decoding=decoding)
    assert not policy.model.config.trained_on_visible
    kept = policy.model.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in model.state_dict().items())
    assert policy.predict_action_chunk(an_observation()).shape == (1, 2, 2)
    assert policy.last_record.num_forwards == (num_forwards,)


def test_settings_with_other_cameras_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the run saw the cameras"):
        assemble_policy(run, tmp_path / "policy", PolicySettings(cameras=("wrist", "front")))


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no whole checkpoint"):
        assemble_policy(tmp_path, tmp_path / "policy", SETTINGS)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("objective", "wish", "objective must be one of"),
        ("warmup_steps", 9, "warmup_steps"),
        ("micro_batch", 3, "micro_batch must divide"),
        ("still_share", 1.0, "still_share"),
        ("future_share", 1.5, "future_share"),
        ("waypoints", (0, 3), "waypoints"),
        ("num_turns", -1, "num_turns"),
        ("waypoint_weight", -1.0, "waypoint_weight"),
        ("approach_share", 1.5, "approach_share"),
    ],
)
def test_impossible_recipes_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **{field: value})
