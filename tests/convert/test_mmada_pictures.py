"""MMaDA with a picture tokenizer: ids of pictures and tasks as published, and back."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jinja2 import TemplateError
from PIL import Image
from typer.testing import CliRunner

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.cli.app import ERROR_EXIT, app
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from .published import END, MASK, SPECIALS, TABLE
from .published_images import IMAGE_TABLE, random_picture
from .reference_images import LlamaGen, Magvit

MMADA = next(one for one in TABLE if one.name == "mmada")
MAGVIT = next(one for one in IMAGE_TABLE if one.name == "magvit-v2")
BOS, SOI, EOI, T2I, MMU = range(256 + len(SPECIALS), 256 + len(SPECIALS) + 5)
FIRST = MMU + 1  # of the ids of codes: as many as the tokenizer has ids
GRID = 3  # codes along each side


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """MMaDA, and its picture tokenizer, as they are published."""
    root = tmp_path_factory.mktemp("mmada")
    model = MMADA.write(root / "mmada", MMADA.model())
    return model, MAGVIT.write(root / "magvitv2", Magvit())


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return random_picture()


def prepared(picture: Image.Image) -> torch.Tensor:
    """(1, 3, 48, 48) of a picture 60 high and 90 wide, as the published script prepares it."""
    scaled = picture.resize((72, 48), Image.Resampling.BICUBIC).crop((12, 0, 60, 48))
    return (torch.tensor(np.asarray(scaled)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5


def text_ids(processor: UniDiffProcessor, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_picture_becomes_the_references_codes(
    processor: UniDiffProcessor, picture: Image.Image
) -> None:
    with torch.no_grad():
        expected = Magvit().encode(prepared(picture)).flatten().tolist()
    found = processor.image_codes(picture).tolist()
    assert len(set(expected)) > 3
    assert found == expected


def test_a_question_about_a_picture_is_written_as_published(
    processor: UniDiffProcessor, picture: Image.Image
) -> None:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "what <|mask|>?"}]
    ids = processor.for_chat([{"role": "user", "content": content}])["input_ids"][0].tolist()
    codes = [FIRST + code for code in processor.image_codes(picture).tolist()]
    turn = text_ids(processor, "<|user|>user\n")
    said = processor.encoder.text("what <|mask|>?").ids_L.tolist()
    opening = [END, *text_ids(processor, "<|assistant|>")]
    assert ids == [MMU, SOI, *codes, EOI, *turn, *said, *opening]
    assert MASK not in ids


def test_a_text_alone_is_written_as_without_a_picture_tokenizer(
    processor: UniDiffProcessor, folders: tuple[Path, Path]
) -> None:
    plain = UniDiffProcessor.from_pretrained(folders[0])
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    one, two = (each.for_chat(chat)["input_ids"].tolist() for each in (processor, plain))
    assert one == two


def test_a_wish_for_a_picture_is_written_as_published(processor: UniDiffProcessor) -> None:
    wish = processor.for_image("a red cat")
    text = text_ids(processor, "a red cat")
    assert wish["input_ids"].tolist() == [[T2I, BOS, *text, END, SOI]]
    assert wish["canvas"].tolist() == [[MASK] * GRID**2 + [EOI]]
    assert wish["pinned_mask"].tolist() == [[False] * GRID**2 + [True]]
    dropped = processor.for_dropped_condition("image")
    assert dropped["input_ids"].tolist() == [[T2I, BOS, END, SOI]]


def test_several_wishes_are_padded_on_the_left(processor: UniDiffProcessor) -> None:
    both = processor.for_image(["a cat", "a very red cat"])
    short = processor.for_image("a cat")["input_ids"][0].tolist()
    assert both["input_ids"][0].tolist()[-len(short) :] == short
    assert both["attention_mask"][0].sum() == len(short)


def test_a_wish_with_a_picture_in_it_is_refused(
    processor: UniDiffProcessor, picture: Image.Image
) -> None:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "in blue"}]
    with pytest.raises(TemplateError, match="MMaDA draws from text"):
        processor.for_image([{"role": "user", "content": content}])


def test_ids_become_the_references_pixels(processor: UniDiffProcessor) -> None:
    codes = torch.arange(GRID**2).view(1, GRID, GRID)
    reference = Magvit()
    with torch.no_grad():
        reference.encode(torch.zeros(1, 3, 16, 16))  # the halves' weights are made in this order
        pixels = reference.decode(codes)[0]
    expected = ((pixels.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    drawn = processor.decode_image((codes.flatten() + FIRST).numpy())
    assert drawn.size == (48, 48)
    assert np.abs(np.asarray(drawn).astype(int) - expected).max() <= 1
    row = [T2I, BOS, 7, END, SOI, *(codes.flatten() + FIRST).tolist(), EOI]
    assert np.array_equal(np.asarray(processor.decode_image(row)), np.asarray(drawn))


def test_the_model_draws(processor: UniDiffProcessor, folders: tuple[Path, Path]) -> None:
    model = UniDiffForBlockDiffusion.from_pretrained(folders[0], dtype=torch.float32)
    wish = processor.for_image("a red cat")
    out = model.generate(**wish, do_sample=False)
    ids = out[0, wish["input_ids"].shape[1] :].tolist()
    assert all(FIRST <= one < FIRST + 16 for one in ids[: GRID**2])
    assert ids[GRID**2] == EOI
    drawn = processor.post_process(out, wish)[0]
    assert np.array_equal(np.asarray(drawn), np.asarray(processor.decode_image(ids[: GRID**2])))


def test_a_converted_folder_has_its_picture_tokenizer_with_it(
    folders: tuple[Path, Path], processor: UniDiffProcessor, picture: Image.Image, tmp_path: Path
) -> None:
    copies = [Path(shutil.copytree(one, tmp_path / one.name)) for one in folders]
    native = convert_checkpoint(copies[0], tmp_path / "native", image_tokenizer=copies[1])
    for copy in copies:
        shutil.rmtree(copy)
    again = UniDiffProcessor.from_pretrained(native)
    assert again.layout == processor.layout
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "what?"}]
    requests: list[Any] = [
        lambda one: one.for_chat([{"role": "user", "content": content}])["input_ids"],
        lambda one: one.for_image("a red cat")["input_ids"],
        lambda one: torch.tensor(np.asarray(one.decode_image(np.arange(9) + FIRST))),
    ]
    for request in requests:
        assert torch.equal(request(again), request(processor))
    assert UniDiffForBlockDiffusion.from_pretrained(native).config.layout == again.layout
    back = export_checkpoint(native, tmp_path / "back")
    for path in folders[0].iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_tokenizer_that_does_not_fit_is_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    other = IMAGE_TABLE[1].write(tmp_path / "llamagen", LlamaGen())
    with pytest.raises(ValueError, match=r"has 50 codes but the layout's image range holds 16"):
        UniDiffProcessor.from_pretrained(folders[0], image_tokenizer=other)
    with pytest.raises(ValueError, match="has 50 codes"):
        convert_checkpoint(folders[0], tmp_path / "native", image_tokenizer=other)
    assert not (tmp_path / "native").exists()
    llada = TABLE[0].write(tmp_path / "llada", TABLE[0].model())
    with pytest.raises(ValueError, match="no rows for pictures: llada knows text only"):
        UniDiffProcessor.from_pretrained(llada, image_tokenizer=folders[1])


def test_a_checkpoint_of_ours_brings_its_own(folders: tuple[Path, Path], tmp_path: Path) -> None:
    native = convert_checkpoint(folders[0], tmp_path / "native", image_tokenizer=folders[1])
    with pytest.raises(ValueError, match="has its image tokenizer with it"):
        UniDiffProcessor.from_pretrained(native, image_tokenizer=folders[1])


def test_a_folder_converted_without_a_picture_tokenizer_gets_one_later(
    folders: tuple[Path, Path], processor: UniDiffProcessor, picture: Image.Image, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(folders[0], tmp_path / "mmada"))
    native = convert_checkpoint(model, tmp_path / "native")
    shutil.rmtree(model)
    bare = UniDiffProcessor.from_pretrained(native)
    with pytest.raises(ValueError, match=r"needs image_tokenizer=.* or --image-tokenizer in"):
        bare.for_image("a red cat")
    with pytest.raises(ValueError, match=r"pass image_tokenizer=\.\.\. there .* converted without"):
        bare.for_chat([{"role": "user", "content": [{"type": "image", "image": picture}]}])
    given = ["convert", str(native), str(tmp_path / "whole")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == ERROR_EXIT
    assert "--image-tokenizer PATH" in result.stderr
    result = CliRunner().invoke(app, [*given, "--image-tokenizer", str(folders[1])])
    assert result.exit_code == 0, result.output
    later = UniDiffProcessor.from_pretrained(native, image_tokenizer=folders[1])
    later.save_pretrained(native)
    for folder in (native, tmp_path / "whole"):
        again = UniDiffProcessor.from_pretrained(folder)
        assert again.layout == processor.layout
        wish, expected = again.for_image("a red cat"), processor.for_image("a red cat")
        assert torch.equal(wish["input_ids"], expected["input_ids"])
        weights = UniDiffForBlockDiffusion.from_pretrained(folder)
        drawn = weights.generate(**wish, do_sample=False)
        assert again.post_process(drawn, wish)[0].size == (48, 48)
        back = export_checkpoint(folder, tmp_path / f"back-{folder.name}")
        for path in folders[0].iterdir():
            assert (back / path.name).read_bytes() == path.read_bytes(), path.name
    other = IMAGE_TABLE[1].write(tmp_path / "llamagen", LlamaGen())
    shutil.rmtree(native / "image_tokenizer")
    with pytest.raises(ValueError, match="has 50 codes"):
        UniDiffProcessor.from_pretrained(native, image_tokenizer=other)


def test_ids_of_pictures_that_the_tokenizer_lacks_are_named(tmp_path: Path) -> None:
    folder = MMADA.write(tmp_path / "mmada", MMADA.model())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text(encoding="utf-8").replace("<|soi|>", "<|other|>")
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no <\|soi\|> and 265 ids.* the id 126084"):
        UniDiffProcessor.from_pretrained(folder)
