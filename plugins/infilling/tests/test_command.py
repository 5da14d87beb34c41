"""`unidiff infill`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from unidiff.cli.app import app
from unidiff.plugins.pictures import box_mask


@pytest.fixture
def run_command():
    """Runs a command line; `report` is its stdout as JSON where it asked for that."""

    def run(*arguments):
        line = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, line)
        wants_json = "--json" in line and result.exit_code == 0
        report = json.loads(result.stdout) if wants_json else None
        return SimpleNamespace(code=result.exit_code, err=result.stderr, report=report)

    return run


@pytest.fixture
def picture(tmp_path):
    """A colourful picture that is no square, 40 x 24."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def test_infill_fills_the_holes_of_a_text(run_command):
    line = ("infill", "def add(a, b):<|hole|>return c", "--hole-length", 3, "--json")
    report = run_command(*line).report
    assert report["output"].startswith("def add(a, b):")
    assert report["output"].endswith("return c")
    assert report["num_forwards"] == 3


def test_infill_fills_a_box_of_a_picture(run_command, picture, tmp_path):
    out = tmp_path / "filled.png"
    line = ("infill", "--image", picture, "--box", 0, 0, 12, 40, "--steps", 2, "--out", out)
    report = run_command(*line, "--json").report
    assert report["file"] == str(out)
    assert Image.open(out).size == (256, 256)


def test_infill_fills_a_caption_beside_its_picture(run_command, picture, tmp_path):
    line = ("infill", "a photo of <|hole|>.", "--image", picture, "--out", tmp_path / "x.png")
    report = run_command(*line, "--json").report
    assert report["output"].startswith("a photo of")
    assert report["file"] is not None


def test_a_box_is_true_inside_and_false_outside():
    mask = box_mask((4, 3), (1, 2, 2, 1))
    assert mask.tolist() == [[False] * 4, [False, False, True, False], [False, False, True, False]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("infill",), "give a text"),
        (("infill", "no hole here"), "no hole"),
        (("infill", "--box", 0, 0, 1, 1), "--image"),
        (("infill", "a <|hole|>", "--hole-length", 1025), "--hole-length must be at most 1024"),
        (("infill", "a <|hole|>", "--hole-length", 1024), "context holds 1024: shorten the hole"),
        (("infill", "a <|hole|> b <|hole|>", "--search-length"), "exactly one"),
        (("infill", "a <|hole|>", "--boundary", "fuzzy"), "must be one of"),
        (("infill", "--one-line", "--image", "PICTURE"), "without a picture"),
        (("infill", "--image", "PICTURE"), "--box"),
        (("infill", "--image", "PICTURE", "--box", 0, 0, 25, 1), "24 rows"),
        (("infill", "--image", "PICTURE", "--box", 0, 0, 0, 1), "hold a pixel"),
        (("infill", "--image", "PICTURE", "--box", 0, 0, 1, 1, "--out", "x.txt"), ".png"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run_command, picture, line, words):
    result = run_command(*[picture if part == "PICTURE" else part for part in line])
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_hole_inside_a_word_keeps_the_words_known_characters(run_command):
    line = ("infill", "def method(se<|hole|>):", "--boundary", "unbiased", "--hole-length", 2)
    report = run_command(*line, "--json").report
    assert report["output"] == "def method(self):"
    assert report["middle"] == "lf"


def test_a_searched_hole_says_its_length_and_how_well_it_reads(run_command):
    line = ("infill", "for i in <|hole|>:\n    print(i)\n", "--search-length", "--one-line")
    report = run_command(*line, "--json").report
    assert report["length"] > 1
    assert report["log_prob"] < 0
    assert "\n" not in report["middle"]
