"""`unidiff draw`, `inpaint`, `outpaint`, `edit` and `upscale`."""

import numpy as np
import pytest
from PIL import Image
from unidiff_imaging.text_to_image import drawing_sentence

QUICK = ("--steps", 2, "--guidance", 1)


def test_draw_writes_as_many_pictures_as_asked_for(run_command, tmp_path):
    out = tmp_path / "new" / "x.png"
    line = ("draw", "a red circle left of a blue square", "--num", 3, *QUICK)
    report = run_command(*line, "--out", out, "--scale", 2, "--json").report
    assert report["task"] == "draw"
    assert report["input"] == "draw a red circle left of a blue square"
    assert report["files"] == [str(out.with_name(f"x_{number}.png")) for number in range(3)]
    pictures = [np.asarray(Image.open(path)) for path in report["files"]]
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    assert [one["num_forwards"] for one in report["results"]] == [2, 2, 2]


def test_draw_gives_one_picture_the_name_it_was_told(run_command, tmp_path):
    result = run_command("draw", "a bag", "--steps", 1, "--out", tmp_path / "bag.png")
    assert result.out.strip() == str(tmp_path / "bag.png")
    assert (tmp_path / "bag.png").exists()


def test_a_picture_is_named_after_its_command_where_nobody_names_it(
    run_command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run_command("draw", "a bag", *QUICK).out.strip() == "drawing.png"
    assert (tmp_path / "drawing.png").exists()


def test_a_guided_drawing_takes_two_forwards_a_step(run_command, tmp_path):
    line = ("draw", "a bag", "--steps", 2, "--guidance", 2.0, "--out", tmp_path / "x.png")
    assert run_command(*line, "--json").report["results"][0]["num_forwards"] == 4


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("a red circle", "draw a red circle"),
        ("paint a red circle", "paint a red circle"),
        ("a sneaker", "draw a sneaker."),
        ("Show me a bag.", "show me a bag."),
    ],
)
def test_a_drawing_request_reads_as_in_training(request_, said):
    assert drawing_sentence(request_) == said


def test_inpaint_fills_a_box_and_keeps_the_known_pixels(run_command, picture, processor, tmp_path):
    box = ("--box", 0, 0, 12, 40)
    line = ("inpaint", picture, *box, *QUICK, "--scale", 1, "--json")
    out = tmp_path / "filled.png"
    report = run_command(*line, "--out", out).report
    assert report["image"] == str(picture)
    assert report["files"] == [str(out)]
    known = np.asarray(processor.image_processor.postprocess(_pixels(processor, picture))[0])
    filled = np.asarray(Image.open(out))
    assert np.array_equal(filled[17:], known[17:])
    run_command(*line, "--no-keep-pixels", "--out", out)
    assert not np.array_equal(np.asarray(Image.open(out))[17:], known[17:])


def test_a_mask_names_the_same_hole_as_a_box(run_command, picture, tmp_path):
    mask = np.zeros((24, 40), dtype=np.uint8)
    mask[6:18, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = [tmp_path / "box.png", tmp_path / "by_mask.png"]
    run_command("inpaint", picture, "--box", 6, 10, 12, 20, *QUICK, "--out", files[0])
    run_command("inpaint", picture, "--mask", tmp_path / "mask.png", *QUICK, "--out", files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_text_reaches_the_filling(run_command, picture, tmp_path):
    files = []
    for name, more in (("without", ()), ("with", ("--text", "a red circle"))):
        files.append(tmp_path / f"{name}.png")
        run_command("inpaint", picture, "--box", 0, 0, 24, 20, *QUICK, *more, "--out", files[-1])
    assert files[0].read_bytes() != files[1].read_bytes()


def test_outpaint_keeps_the_picture_in_its_window(run_command, picture, tmp_path):
    out = tmp_path / "x.png"
    line = ("outpaint", picture, "--window", 0, 0, 16, 20, *QUICK, "--scale", 1, "--out", out)
    report = run_command(*line, "--json").report
    assert report["window"] == [2, 0, 12, 20]
    small = Image.open(picture).resize((20, 12), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(Image.open(out))[2:14, :20], np.asarray(small))


def test_edit_has_a_scale_for_the_picture_and_one_for_the_words(run_command, picture, tmp_path):
    line = ("edit", picture, "make it blue", "--steps", 2, "--out", tmp_path / "x.png", "--json")
    # With guidance the first of two steps reads three prompts: the weaker ones are read in every
    # second step.
    for scales, forwards in (((1, 1), 2), ((1.5, 2), 4)):
        chosen = ("--picture-guidance", scales[0], "--guidance", scales[1])
        report = run_command(*line, *chosen).report
        assert report["results"][0]["num_forwards"] == forwards
    assert report["input"] == "make it blue"


def test_upscale_writes_a_picture_of_full_size(run_command, picture, tmp_path):
    out = tmp_path / "x.png"
    assert run_command("upscale", picture, *QUICK, "--scale", 1, "--out", out).code == 0
    assert Image.open(out).size == (32, 32)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("draw", ""), "empty"),
        (("draw", "a bag", "--out", "x"), "--out"),
        (("inpaint", "PICTURE"), "--box ROW COL HEIGHT WIDTH or --mask"),
        (("inpaint", "PICTURE", "--box", 0, 0, 1, 1, "--mask", "PICTURE"), "either"),
        (("inpaint", "PICTURE", "--box", 0, 0, 25, 1), "24 rows"),
        (("inpaint", "PICTURE", "--box", 0, 0, 0, 1), "hold a pixel"),
        (("inpaint", "PICTURE", "--box", 0, 0, 1, 1, "--out", "x.txt"), ".png"),
        (("inpaint", "PICTURE", "--mask", "BLACK"), "nothing is to be filled"),
        (("inpaint", "PICTURE", "--mask", "SMALL"), "shape of its picture"),
        (("inpaint", "nowhere.png", "--box", 0, 0, 1, 1), "nowhere.png"),
        (("inpaint", "NO_PICTURE", "--box", 0, 0, 1, 1), "no picture"),
        (("outpaint", "PICTURE", "--window", 0, 0, 33, 1), "32 rows"),
        (("edit", "PICTURE", " "), "empty"),
        (("edit", "nowhere.png", "make it blue"), "nowhere.png"),
        (("upscale", "nowhere.png"), "nowhere.png"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run_command, picture, tmp_path, line, words):
    named = {"PICTURE": picture}
    for name, size in (("BLACK", (40, 24)), ("SMALL", (3, 3))):
        named[name] = tmp_path / f"{name}.png"
        Image.new("L", size).save(named[name])
    named["NO_PICTURE"] = tmp_path / "no_picture.png"
    named["NO_PICTURE"].write_text("words")
    result = run_command(*[named.get(part, part) for part in line])
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def _pixels(processor, path):
    """The picture as the tokenizer sees it."""
    return processor.image_processor(Image.open(path), return_tensors="pt")["pixel_values"]
