"""Pictures as features on the command line: what a picture shows reaches the model.

Run: pytest tests/cli/test_soft_pictures.py
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.convert.published_soft import DREAM_VL, LLADA_V, SOFT_TABLE
from unidiff.cli.chat import Conversation
from unidiff.cli.options import ModelChoice
from unidiff.cli.session import open_session
from unidiff.model.modeling import UniDiffForBlockDiffusion

SHORT = ("--max-new-tokens", 8, "--block-length", 8, "--temperature", 0)


@pytest.fixture(scope="module", params=SOFT_TABLE, ids=lambda one: one.name)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    published = request.param
    return published.write(tmp_path_factory.mktemp("soft") / "foreign", published.model())


@pytest.fixture(scope="module")
def llada_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LLADA_V.write(tmp_path_factory.mktemp("soft") / "foreign", LLADA_V.model())


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of every call of `generate()`."""
    calls: list[dict[str, Any]] = []
    real = UniDiffForBlockDiffusion.generate

    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(UniDiffForBlockDiffusion, "generate", generate)
    return calls


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two pictures of one size that show different things."""
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for seed, path in enumerate(paths):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return paths


def test_generate_answers_what_a_picture_shows(
    run_command: Any, folder: Path, pictures: list[Path], given: list[dict[str, Any]]
) -> None:
    for path in pictures:
        result = run_command(
            "generate", "What is this?", "--image", path, *SHORT, "--json", checkpoint=folder
        )
        assert result.code == 0, result.err
        assert result.report["images"] == [str(path)]
    session = open_session(ModelChoice(folder, "cpu"))
    for path, call in zip(pictures, given, strict=True):
        with Image.open(path) as picture:
            content = [{"type": "image", "image": picture.copy()}]
        content.append({"type": "text", "text": "What is this?"})
        expected = session.processor.for_chat([{"role": "user", "content": content}])
        assert "pixel_values" in expected
        assert set(expected) <= set(call)
        for name, value in expected.items():
            assert torch.equal(call[name], value), name
    assert not torch.equal(given[0]["pixel_values"], given[1]["pixel_values"])
    assert torch.equal(given[0]["input_ids"], given[1]["input_ids"])  # pixels alone differ


def test_an_answer_depends_on_the_picture(
    run_command: Any, llada_v: Path, pictures: list[Path]
) -> None:
    def said(*paths: Path) -> str:
        shown = [word for path in paths for word in ("--image", path)]
        line = ("generate", "What is this?", *shown, *SHORT, "--json")
        result = run_command(*line, checkpoint=llada_v)
        assert result.code == 0, result.err
        return result.report["output"]

    one, two = pictures
    assert said(one) == said(one)
    assert len({said(one), said(two), said(one, two), said(two, one)}) > 1


def test_the_answer_alone_is_printed(run_command: Any, llada_v: Path, pictures: list[Path]) -> None:
    result = run_command("generate", "What?", "--image", pictures[0], *SHORT, checkpoint=llada_v)
    assert result.code == 0, result.err
    assert not result.out.startswith("What?")
    assert "forwards" in result.err


def test_chat_shows_its_picture_in_every_turn(
    run_command: Any, folder: Path, pictures: list[Path], given: list[dict[str, Any]]
) -> None:
    lines = f"what is this?\nand now?\n/image {pictures[1]}\nand this?\n/new\nhello\n"
    result = run_command("chat", "--image", pictures[0], *SHORT, checkpoint=folder, stdin=lines)
    assert result.code == 0, result.err
    first, second, other, none = given
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert second["input_ids"].shape[1] > first["input_ids"].shape[1]
    assert other["pixel_values"].shape == first["pixel_values"].shape
    assert not torch.equal(other["pixel_values"], first["pixel_values"])
    assert "pixel_values" not in none


@pytest.mark.parametrize("published", [LLADA_V, DREAM_VL], ids=lambda one: one.name)
def test_a_second_turn_equals_a_fresh_start(
    published: Any, tmp_path: Path, pictures: list[Path]
) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    session = open_session(ModelChoice(folder, "cpu"))
    options = {"max_new_tokens": 6, "block_length": 6, "do_sample": False, "seed": 0}
    kept = Conversation(session, options, pictures[0])
    fresh = Conversation(session, options, pictures[0])
    for text in ("what is this?", "is it a bag?"):
        fresh.cache = None
        assert kept.say(text).value == fresh.say(text).value


def test_what_is_no_picture_is_one_line(run_command: Any, llada_v: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    result = run_command("generate", "What?", "--image", text, checkpoint=llada_v)
    assert result.code == 2
    assert "text.png is no picture" in result.err
    result = run_command("generate", "What?", "--image", tmp_path / "none.png", checkpoint=llada_v)
    assert result.code == 2
    assert "none.png is no file" in result.err
    result = run_command("chat", *SHORT, checkpoint=llada_v, stdin=f"/image {text}\nhello\n")
    assert result.code == 0
    assert "text.png is no picture" in result.err
    assert result.out != ""


def test_a_checkpoint_with_picture_codes_is_asked_alike(
    run_command: Any, pictures: list[Path], given: list[dict[str, Any]]
) -> None:
    for path in pictures:
        result = run_command("generate", "What is this?", "--image", path, *SHORT)
        assert result.code == 0, result.err
    assert all("pixel_values" not in call for call in given)
    assert not torch.equal(given[0]["input_ids"], given[1]["input_ids"])  # the codes are in it
