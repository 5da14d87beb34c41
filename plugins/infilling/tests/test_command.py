"""`unidiff infill`."""

import pytest
from PIL import Image

from unidiff.cli.infill import box_mask


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
        (("infill", "a <|hole|>", "--hole-length", 4097), "--hole-length must be at most 4096"),
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
