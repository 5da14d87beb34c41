"""`unidiff demo`: what it asks, what it writes, and the pictures' layout."""

import numpy as np
import pytest
from PIL import Image

from unidiff.cli.gallery import _one_line, _strips, draw_gallery
from unidiff.cli.page import write_page
from unidiff.cli.showcase import Row
from unidiff.data.sources.garments import DEFAULT_ROOT
from unidiff.data.sources.held_out import held_out
from unidiff.plugins import ChatTask, DemoExample, Plugin, registered, registry, shown, user

TASKS = {"brighter", "chat", "act (reach)", "act (push)"}
needs_photographs = pytest.mark.skipif(
    not DEFAULT_ROOT.exists(), reason="Fashion-MNIST is not installed: make data"
)


class Brighter(ChatTask):
    """A task that only a test has: it is right whatever is said."""

    name, summary = "brighter", "Which half is brighter."
    modalities = frozenset({"text", "image"})
    columns = {"image": "picture"}
    decoding = {"max_new_tokens": 2}

    def messages(self, example):
        return [user(shown(example["image"]), "which half?")]

    def demo(self, seed):
        picture = np.full((32, 32, 3), 7 * seed, dtype=np.uint8)
        return [
            DemoExample({"image": picture}, "which half?", "left", lambda said: True),
            DemoExample(
                {"image": picture},
                "and now?",
                pictures=lambda said: [picture, picture],
                said=lambda said: "right",
                section="Another section",
            ),
        ]


class Singing(Brighter):
    """A task of a modality that the checkpoint does not have."""

    name, modalities = "singing", frozenset({"text", "song"})


@pytest.fixture(scope="module")
def demonstration(run_command, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "installed_plugins", lambda: [])
        patch.setattr(registry, "requires", lambda name: ['unidiff-far; extra == "plugins"'])
        with registered(Plugin("test_only", tasks=(Brighter(), Singing()))):
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
def test_a_plugin_says_what_its_examples_show_and_whether_the_answer_is_right(demonstration):
    rows = [one for one in demonstration[1].report["rows"] if one["task"] == "brighter"]
    assert [one["is_right"] for one in rows] == [True, None]
    assert rows[1]["output"] == "right"


@needs_photographs
def test_what_is_absent_or_cannot_be_shown_is_named(demonstration):
    missing = demonstration[1].report["missing"]
    assert missing["unidiff-far"] == "not installed"
    assert missing["singing"] == "this checkpoint has no song tokens"


@needs_photographs
def test_the_demo_prints_a_table_for_people(run_command, tmp_path, monkeypatch):
    monkeypatch.setenv(registry.ALLOW_LIST, "")
    monkeypatch.setattr(registry, "requires", lambda name: ["unidiff-far; extra == 'plugins'"])
    result = run_command("demo", "--out", tmp_path, "--seed", 1)
    assert result.code == 0
    assert "tokens/forward" in result.out
    assert "not shown: unidiff-far (not installed)" in result.out
    assert "right" in result.out.splitlines()[-4]


@needs_photographs
def test_scenes_of_the_demo_never_occur_in_training():
    data = held_out(0)
    for purpose in range(1, 9):
        assert all(scene.is_unseen for scene in data.choose_scenes(purpose, 5))


@needs_photographs
def test_one_photograph_of_each_class_comes_before_a_second_one():
    data = held_out(0)
    labels = data.labels[data.choose_photographs(1, 10)]
    assert sorted(labels.tolist()) == list(range(10))


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


def test_groups_that_do_not_fit_into_a_line_begin_another(tmp_path):
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    three, four = ([row([picture] * 3)] * number for number in (3, 4))
    assert [len(strip) for strip in _strips(four)] == [3, 1]
    assert [len(strip) for strip in _strips([row([picture])] * 12)] == [12]
    assert _strips([]) == []
    sizes = []
    for rows in (three, four):
        draw_gallery(tmp_path / "x.png", {"groups": rows})
        sizes.append(Image.open(tmp_path / "x.png").size)
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] > 1.5 * sizes[0][1]


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
