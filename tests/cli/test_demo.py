"""`unidiff demo`: what it asks, what it writes, and the pictures' layout."""

import numpy as np
import pytest
from PIL import Image

from unidiff.cli import demo_draw, demo_talk
from unidiff.cli.gallery import _one_line, draw_gallery
from unidiff.cli.options import ModelChoice
from unidiff.cli.page import write_page
from unidiff.cli.session import open_session
from unidiff.cli.showcase import Row
from unidiff.data.sources.garments import DEFAULT_ROOT
from unidiff.data.sources.held_out import held_out
from unidiff.data.sources.library_text import heldout_module, iter_documents

TASKS = {
    *("describe", "answer", "draw", "fill picture", "fill both", "fill text", "chat"),
    *("act (reach)", "act (push)"),
}
needs_photographs = pytest.mark.skipif(
    not DEFAULT_ROOT.exists(), reason="Fashion-MNIST is not installed: make data"
)


@pytest.fixture(scope="module")
def session(tiny_checkpoint):
    return open_session(ModelChoice(tiny_checkpoint))


@pytest.fixture(scope="module")
def demonstration(run_command, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new"
    return out, run_command("demo", "--out", out, "--json")


def row(pictures=(), is_right=True, text="words with a $ sign"):
    return Row("task", text, "an output", "a truth", is_right, 3, 2.0, 0.1, tuple(pictures))


@needs_photographs
def test_the_demo_shows_every_task_with_input_output_truth_and_cost(demonstration):
    _, result = demonstration
    assert result.code == 0, result.err
    rows = result.report["rows"]
    assert {one["task"] for one in rows} == TASKS
    for one in rows:
        assert one["input"]
        assert one["truth"]
        assert one["num_forwards"] >= 1
        assert one["tokens_per_forward"] >= 0
    assert result.report["asked"] == len(rows)


@needs_photographs
def test_the_demo_writes_gallery_film_and_page(demonstration):
    out, _ = demonstration
    gallery = Image.open(out / "gallery.png")
    assert gallery.size[0] > 1200
    assert Image.open(out / "episode.gif").n_frames > 10
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert page.count("data:image/gif;base64,") == 1
    assert "http" not in page.split("<body>")[1].replace("http-equiv", "")


@needs_photographs
def test_the_demo_prints_a_table_for_people(run_command, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_talk, "PHOTOGRAPHS", 6)
    result = run_command("demo", "--out", tmp_path, "--seed", 1)
    assert result.code == 0
    assert "tokens/forward" in result.out
    assert "right" in result.out.splitlines()[-4]


@needs_photographs
def test_the_seed_decides_what_is_shown_and_said(session):
    def described(seed):
        return [(one.output, one.truth) for one in demo_talk.describe(session, held_out(seed))]

    assert described(1) == described(1)
    assert described(1) != described(2)


@needs_photographs
def test_scenes_of_the_demo_never_occur_in_training():
    data = held_out(0)
    for purpose in range(1, 9):
        assert all(scene.is_unseen for scene in data.choose_scenes(purpose, 5))


@needs_photographs
def test_text_with_holes_comes_from_held_out_modules(session):
    heldout = "\n".join(text.replace("\n", " ") for _, text in iter_documents("heldout"))
    assert all(heldout_module(name.split(".__doc__")[0]) for name, _ in iter_documents("heldout"))
    for before, word, after in demo_talk._texts_with_holes(held_out(0)):
        assert before + word + after in heldout


@needs_photographs
def test_one_photograph_of_each_class_comes_before_a_second_one():
    data = held_out(0)
    labels = data.labels[data.choose_photographs(1, 10)]
    assert sorted(labels.tolist()) == list(range(10))


@needs_photographs
def test_a_filled_picture_keeps_what_was_known(session):
    for one in demo_draw.fill_pictures(session, held_out(0)):
        given, filled, original = one.pictures
        assert given.shape == filled.shape == original.shape
        is_known = (given == original).all(-1)
        assert 0.3 < is_known.mean() < 0.9


def test_missing_photographs_say_how_to_get_them(run_command, tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.data.sources.garments.DEFAULT_ROOT", tmp_path)
    result = run_command("demo", "--out", tmp_path / "out")
    assert result.code == 2
    assert "make data" in result.err
    assert not (tmp_path / "out").exists()


def test_a_negative_seed_is_refused(run_command, tmp_path):
    result = run_command("demo", "--out", tmp_path, "--seed", -1)
    assert result.code == 2
    assert "--seed" in result.err


def test_the_gallery_draws_every_kind_of_section(tmp_path):
    rng = np.random.default_rng(0)
    one, two, three = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    sections = {
        "panels": [row([one]), row([two], False), row([three], None)],
        "groups": [row([one, two, three])],
        "chat": [row([one]), row([one]), row([two])],
        "lines": [row(), row(is_right=None)],
        "nothing": [],
    }
    draw_gallery(tmp_path / "all.png", sections)
    draw_gallery(tmp_path / "one.png", {"panels": sections["panels"]})
    whole, part = (Image.open(tmp_path / name) for name in ("all.png", "one.png"))
    assert whole.size[0] == part.size[0]
    assert whole.size[1] > 2 * part.size[1]
    red = np.asarray(part.convert("RGB")).astype(int) - [185, 28, 28]
    assert (np.abs(red).sum(-1) < 30).any()


def test_a_line_of_the_gallery_stays_a_line():
    assert _one_line("a\nb", 20) == "a \u21b5 b"
    assert _one_line("x" * 30, 20) == "x" * 17 + "..."


def test_the_page_escapes_what_the_model_says(tmp_path):
    for name in ("gallery.png", "episode.gif"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    summary = {"right": 1, "judged": 1, "num_forwards": 3, "seconds": 0.1, "seed": 0}
    write_page(tmp_path, {"Title": [row(text="<script>")]}, summary)
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
