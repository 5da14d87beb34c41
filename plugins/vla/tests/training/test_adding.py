"""pytest plugins/vla/tests/training/test_adding.py: data sets whose codes are added to others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unidiff_vla.environments.instructions import instructions_of
from unidiff_vla.training import read_recordings, train_policy
from unidiff_vla.training.codes import (
    CODES_FILE,
    TOKENIZER_FOLDER,
    add_recordings,
    stored_bins,
)
from unidiff_vla.training.pictures import encode

from unidiff.tokens.image import FSQImageTokenizer

from .tiny_run import CAMERAS, TINY, write_set

KNOWN = instructions_of("push")[0]


def codes_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / CODES_FILE, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def add(data: list[Path], folder: Path, *, is_trained: bool = False) -> str:
    """What was said of it."""
    notes: list[str] = []
    add_recordings(data, folder, is_trained=is_trained, note=notes.append)
    return "; ".join(notes)


@pytest.fixture
def own(coded_run: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A folder with the codes of the recorded set."""
    return coded_run(tmp_path / "run")


def test_added_frames_stand_behind_the_others_in_the_same_codes(own: Path, tmp_path: Path) -> None:
    before = codes_of(own)
    sets = [write_set(tmp_path / "more", KNOWN), write_set(tmp_path / "other", "wave")]
    assert "4 frames added to 45" in add(sets, own)
    after = codes_of(own)
    for name in ("pictures", "states", "chunks", "instruction_index", "episode_index", "is_fresh"):
        assert np.array_equal(after[name][:45], before[name]), name
        assert after[name].dtype == before[name].dtype, name
        assert len(after[name]) == 49, name
    for name in ("cameras", "state_bins", "action_bins"):
        assert np.array_equal(after[name], before[name]), name
    told = [str(after["instructions"][one]) for one in after["instruction_index"][45:]]
    assert told == [KNOWN, KNOWN, "wave", "wave"]
    assert len(after["instructions"]) == 10
    assert after["episode_index"][44:].tolist() == [8, 9, 9, 10, 10]
    recordings = read_recordings(sets, 2)
    states, actions = stored_bins(after)
    assert np.array_equal(after["states"][45:], states.encode(recordings.states))
    assert np.array_equal(after["chunks"][45:], actions.encode(recordings.chunks))
    tokenizer = FSQImageTokenizer.from_pretrained(own / TOKENIZER_FOLDER).eval()
    for place, camera in enumerate(CAMERAS):
        codes = encode(tokenizer, recordings.pictures[camera])
        assert np.array_equal(after["pictures"][45:, place], codes)


def test_what_is_there_is_not_added_again(own: Path, recorded: Path, tmp_path: Path) -> None:
    more = write_set(tmp_path / "more", "wave")
    add([recorded, more], own)
    assert len(codes_of(own)["states"]) == 47
    written = (own / CODES_FILE).read_bytes()
    moved = more.rename(tmp_path / "moved")
    assert "holds the frames of all" in add([moved, recorded], own)
    assert (own / CODES_FILE).read_bytes() == written
    add([moved, moved, recorded], own)  # given twice, it counts twice
    assert codes_of(own)["episode_index"][45:].tolist() == [9, 9, 10, 10]


def test_codes_that_do_not_say_what_they_hold_take_everything_once(
    own: Path, tmp_path: Path
) -> None:
    arrays = codes_of(own)
    del arrays["data_sets"]  # as in older files
    np.savez_compressed(own / CODES_FILE, **arrays)
    more = write_set(tmp_path / "more", "wave")
    for _ in range(2):
        add([more], own)
        assert len(codes_of(own)["states"]) == 47


def test_numbers_outside_the_bins_are_counted(own: Path, tmp_path: Path) -> None:
    assert " 0.00% of their numbers" in add([write_set(tmp_path / "in", "wave")], own)
    # Of each frame three numbers are the state and four the chunk.
    assert "42.86% of their numbers" in add([write_set(tmp_path / "out", "go", state=4.0)], own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 32}, r"\('side', 'front'\), 32, 3, 2\)"),
        ({"width": 4}, r"\('side', 'front'\), 16, 4, 2\)"),
        ({"cameras": ("front", "side")}, r"\('front', 'side'\), 16, 3, 2\)"),
        ({"state": 1000.0}, "state .* is far outside"),
    ],
)
def test_data_sets_that_differ_are_refused(
    changes: dict[str, Any], message: str, own: Path, tmp_path: Path
) -> None:
    written = (own / CODES_FILE).read_bytes()
    with pytest.raises(ValueError, match=message):
        add([write_set(tmp_path / "other", "wave", **changes)], own)
    assert (own / CODES_FILE).read_bytes() == written


def test_nothing_to_add_or_to_add_to_is_refused(own: Path, recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 0 of them, and the file is there"):
        add([], own)
    with pytest.raises(ValueError, match="got 1 of them, and the file is missing"):
        add([recorded], tmp_path / "empty")


def test_a_run_is_trained_on_what_was_added_and_refuses_more(own: Path, tmp_path: Path) -> None:
    more, notes = write_set(tmp_path / "more", "wave"), []
    recipe = replace(TINY, steps=2, save_steps=1)
    for _ in range(2):  # the same line goes on
        train_policy([more], own, recipe, adds=True, note=notes.append)
    assert sum("2 frames added to 45" in one for one in notes) == 1
    assert sum("holds the frames of all" in one for one in notes) == 1
    with pytest.raises(ValueError, match="add there, with --start"):
        train_policy([write_set(tmp_path / "new", "go")], own, recipe, adds=True, note=print)
