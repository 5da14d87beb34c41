"""`unidiff tokenizer train`: an image tokenizer for one's own pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from unidiff.tokens.image import FSQImageTokenizer
from unidiff.tokens.image_processing import UniDiffImageProcessor

SMALL = ("--size", 16, "--levels", "4,4", "--widths", "8,8", "--steps", 4, "--batch-size", 2)


@pytest.fixture
def folder(tmp_path):
    """Ten flat pictures of different sizes, two of them in a sub-folder."""
    inside = tmp_path / "pictures"
    (inside / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(10):
        pixels = np.tile(rng.integers(0, 256, 3, dtype=np.uint8), (12 + number, 16, 1))
        place = inside / "more" if number < 2 else inside
        Image.fromarray(pixels).save(place / f"{number}.png")
    return inside


@pytest.fixture
def train(run_command, folder, tmp_path):
    """Runs the command; other options over the small ones."""

    def run(*options, images=folder, out=tmp_path / "out"):
        line = ("tokenizer", "train", "--images", images, "--out", out, *SMALL, *options)
        return run_command(*line, checkpoint=None)

    return run


def test_a_folder_becomes_a_tokenizer_measured_on_held_out_pictures(train, tmp_path):
    report = train("--held-out", 0.2, "--json").report
    assert (report["num_images"], report["num_held_out"], report["num_left_out"]) == (8, 2, 0)
    assert (report["codebook_size"], report["codes_per_image"]) == (16, 16)
    assert report["psnr_db"] >= report["worst_psnr_db"] > 0
    assert 0 < report["code_use"] <= 1
    assert json.loads((tmp_path / "out" / "measured.json").read_text()) == report
    assert FSQImageTokenizer.from_pretrained(tmp_path / "out").codebook_size == 16
    assert dict(UniDiffImageProcessor.from_pretrained(tmp_path / "out").size)["height"] == 16


def test_people_read_the_quality_and_the_codes_in_use(train):
    result = train()
    assert "dB on 1 held-out pictures" in result.out
    assert "of 16 codes in use" in result.out


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(train, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    train("--json", out=whole)
    import unidiff.training.image_tokenizer as training

    update, calls = training._TrainingRun.update, []

    def stopped(self, pixels, weights):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(self, pixels, weights)

    monkeypatch.setattr(training._TrainingRun, "update", stopped)
    assert train("--save-steps", 2).code == 130
    monkeypatch.setattr(training._TrainingRun, "update", update)
    assert train("--save-steps", 2).code == 0
    files = [place / "model.safetensors" for place in (whole, tmp_path / "out")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_tokenizer_is_not_written_over(train):
    train()
    result = train()
    assert result.code == 2
    assert "finished tokenizer" in result.err


def test_pictures_that_do_not_decode_are_counted_and_left_out_on_request(train, folder):
    (folder / "broken.png").write_text("words")
    refused = train()
    assert refused.code == 2
    assert "1 of 11 pictures" in refused.err
    assert train("--skip-bad", "--json").report["num_left_out"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", 18), "multiple of 4"),
        (("--levels", "4,1"), "2 or more"),
        (("--levels", "many"), "integers with commas"),
        (("--widths", "8,9"), "multiples of 8"),
        (("--held-out", 1.0), "in (0, 1)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(train, options, words):
    result = train(*options)
    assert result.code == 2
    assert words in result.err


def test_a_folder_without_pictures_or_with_one_is_refused(train, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no pictures" in train(images=empty).err
    Image.new("RGB", (8, 8)).save(empty / "one.png")
    assert "two at least" in train(images=empty).err
    assert "is no folder" in train(images=tmp_path / "nowhere").err
