"""Show-o: pictures read and drawn under its own masks, ids as published, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.image_utils import PILImageResampling

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.loading import open_foreign, processor_of
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from .published import MMADA_SPECIALS, write_json, write_tokenizer
from .published_images import IMAGE_TABLE, random_picture
from .published_showo import BOS, EOI, FIRST, MMU, PAD, SOI, SPECIALS, T2I, masked_logits, published
from .reference_images import Magvit

GRID = 3  # codes along each side
SHOWO = published(rows=FIRST + 16 + 1)  # as many codes as the tiny picture tokenizer has
END, MASK = 256, SHOWO.mask
MAGVIT = next(one for one in IMAGE_TABLE if one.name == "magvit-v2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Show-o, whose tokenizer has no template, and its picture tokenizer."""
    root = tmp_path_factory.mktemp("showo")
    folder = SHOWO.write(root / "showo", SHOWO.model())
    (folder / "chat_template.jinja").unlink()
    return folder, MAGVIT.write(root / "magvitv2", Magvit())


def question(processor: UniDiffProcessor, seed: int = 3, text: str = "what?") -> dict[str, Tensor]:
    content = [{"type": "image", "image": random_picture(seed)}, {"type": "text", "text": text}]
    return dict(processor.for_chat([{"role": "user", "content": content}]))


def text_ids(processor: UniDiffProcessor, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_question_about_a_picture_is_written_as_published(processor: UniDiffProcessor) -> None:
    codes = [FIRST + code for code in processor.image_codes(random_picture()).tolist()]
    said = text_ids(processor, "USER: \nwhat? ASSISTANT:")
    ids = question(processor)["input_ids"][0].tolist()
    assert ids == [MMU, SOI, *codes, EOI, BOS, *said]


def test_pictures_are_scaled_as_published(processor: UniDiffProcessor) -> None:
    assert processor.image_processor.resample == PILImageResampling.BILINEAR


def test_a_wish_for_a_picture_is_written_as_published(processor: UniDiffProcessor) -> None:
    wish = processor.for_image("a red cat")
    assert wish["input_ids"].tolist() == [[T2I, BOS, *text_ids(processor, "a red cat"), END]]
    assert wish["canvas"].tolist() == [[SOI] + [MASK] * GRID**2 + [EOI]]
    assert wish["pinned_mask"].tolist() == [[True] + [False] * GRID**2 + [True]]
    dropped = processor.for_dropped_condition("image")
    assert dropped["input_ids"].tolist() == [[T2I, BOS, END]]


def test_a_conversation_without_pictures_has_no_task(processor: UniDiffProcessor) -> None:
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    expected = [BOS, *text_ids(processor, "USER: \nhello ASSISTANT: hi"), END]
    assert processor.for_chat(chat)["input_ids"][0].tolist() == expected


def answer(theirs: nn.Module, prompt: list[int], num_new: int) -> list[int]:
    """The published loop: the likeliest token under a mask that grows by a row like the last."""
    length, row = len(prompt), list(prompt)
    sees = torch.ones(length, length, dtype=torch.bool).tril()
    sees[:, : prompt.index(EOI) + 1] = True
    for _ in range(num_new):
        logits = masked_logits(theirs, torch.tensor([row]), sees[None])[0, -1]
        logits[FIRST:] = -torch.inf  # no codes among words
        logits[[SOI, EOI]] = -torch.inf
        row.append(int(logits.argmax()))
        sees = nn.functional.pad(sees, (0, 1, 0, 1))
        sees[-1] = torch.cat([sees[-2, :-1], torch.tensor([True])])
    return row


def test_an_answer_equals_the_published_loop(
    processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    asked = question(processor)
    expected = answer(SHOWO.model(), asked["input_ids"][0].tolist(), 8)
    for reuse in ("exact", "none"):
        found = model.generate(**asked, max_new_tokens=8, eos_token_id=-1, cache_reuse=reuse)
        assert found[0].tolist() == expected, reuse


def test_answers_of_a_padded_batch_are_those_of_its_rows(
    processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    asked = [question(processor, 3), question(processor, 4, "what is it, and why?")]
    asked.append(dict(processor.for_chat([{"role": "user", "content": "hello"}])))
    both = model.generate(**processor.batch(asked), max_new_tokens=5, eos_token_id=-1)
    for one, row in zip(asked, both.tolist(), strict=True):
        alone = model.generate(**one, max_new_tokens=5, eos_token_id=-1)
        assert row[-5:] == alone[0].tolist()[-5:]


@pytest.mark.parametrize("seed", [3, 4])
def test_a_turn_behind_a_cache_equals_one_from_scratch(
    seed: int, processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    options = {"max_new_tokens": 4, "eos_token_id": -1}
    first = model.generate(**question(processor), return_dict_in_generate=True, **options)
    then = question(processor, seed, "what? and why?")  # the same picture, and another one
    found = model.generate(**then, past_key_values=first.past_key_values, **options)
    assert found.tolist() == model.generate(**then, **options).tolist()


def test_logits_of_padded_rows_are_those_of_the_reference(
    processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    asked = [question(processor, 3), question(processor, 4, "what is it, and why?")]
    both, theirs = processor.batch(asked), SHOWO.model()
    with torch.no_grad():
        logits = model(**both).logits
    for one, row in zip(asked, logits, strict=True):
        expected = SHOWO.logits(theirs, one["input_ids"])[0]
        torch.testing.assert_close(row[-len(expected) :], expected, rtol=1e-5, atol=1e-5)


def drawing(theirs: nn.Module, prompt: list[int]) -> list[int]:
    """The published loop at temperature 0, one code a step, the most probable one first."""
    row = torch.tensor([*prompt, SOI, *[MASK] * GRID**2, EOI])
    sees = torch.ones(len(row), len(row), dtype=torch.bool).tril()
    sees[len(prompt) :] = True  # what is from the opening to the closing token sees all
    while bool((row == MASK).any()):
        law = masked_logits(theirs, row[None], sees[None])[0, :, FIRST:MASK].double().softmax(-1)
        best = law.amax(-1).masked_fill(row != MASK, -1.0)
        row[best.argmax()] = FIRST + law[best.argmax()].argmax()
    return row.tolist()


def test_a_drawing_equals_the_published_loop(
    processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    wish = processor.for_image("a red cat")
    found = model.generate(**wish, unmasking_strategy="static", do_sample=False)
    assert found[0].tolist() == drawing(SHOWO.model(), wish["input_ids"][0].tolist())
    drawn = processor.post_process(found, wish)[0]
    codes = found[0, -(GRID**2) - 1 : -1].numpy()
    assert np.array_equal(np.asarray(drawn), np.asarray(processor.decode_image(codes)))


def test_a_converted_folder_asks_and_draws_the_same(
    folders: tuple[Path, Path], processor: UniDiffProcessor, tmp_path: Path
) -> None:
    native = convert_checkpoint(folders[0], tmp_path / "native", image_tokenizer=folders[1])
    again = UniDiffProcessor.from_pretrained(native)
    assert again.layout == processor.layout
    assert torch.equal(question(again)["input_ids"], question(processor)["input_ids"])
    one, two = (each.for_image("a red cat") for each in (again, processor))
    assert all(torch.equal(one[name], two[name]) for name in one)
    saved = UniDiffForBlockDiffusion.from_pretrained(native).generation_config
    assert saved.decoding_mode == "ar_text"


def test_what_reads_clips_features_is_kept(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / "clip"))
    weights = load_file(folder / "model.safetensors")
    for layer in (0, 2):
        weights[f"mm_projector.{layer}.weight"] = torch.randn(4, 4)
        weights[f"mm_projector.{layer}.bias"] = torch.randn(4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    back = export_checkpoint(convert_checkpoint(folder, tmp_path / "native"), tmp_path / "back")
    for path in folder.iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes(), path.name


def test_tokens_that_the_named_tokenizer_lacks_are_added(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unidiff.convert.showo._TEXT_END", END)  # of the tiny tokenizer
    folder, other = Path(shutil.copytree(folders[0], tmp_path / "bare")), tmp_path / "phi"
    for path in folder.glob("*token*"):
        path.unlink()
    other.mkdir()
    write_tokenizer(other, names_mask=False, specials=SPECIALS[:1])
    opened = open_foreign(folder)
    opened = replace(opened, family=replace(opened.family, tokenizer=str(other)))
    tokenizer = processor_of(opened).tokenizer
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS[1:])) == list(range(PAD, FIRST))
    assert tokenizer.convert_tokens_to_ids("<|soi|>") == SOI


def test_a_tokenizer_with_other_ids_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / "other"))
    write_tokenizer(folder, names_mask=False, specials=(*SPECIALS[:1], *MMADA_SPECIALS[1:]))
    with pytest.raises(ValueError, match=r"has the ids .* has them from 261 on"):
        UniDiffProcessor.from_pretrained(folder, image_tokenizer=folders[1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"codebook_size": 15}, r"has 288 rows .* of 15 codes"),
        ({"num_vq_tokens": 10}, "num_vq_tokens = 10; what can be loaded is the square"),
    ],
)
def test_rows_and_codes_that_do_not_fit_are_named(
    fields: dict[str, int], words: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / "wrong"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, **fields})
    with pytest.raises(ValueError, match=words):
        UniDiffForBlockDiffusion.from_pretrained(folder)


def test_what_would_cut_a_picture_is_refused(
    processor: UniDiffProcessor, model: UniDiffForBlockDiffusion
) -> None:
    with pytest.raises(ValueError, match="prefill_chunk_length=4 cuts prompts"):
        model.generate(**question(processor), prefill_chunk_length=4)
    with pytest.raises(ValueError, match="in a session say 'ar'"):
        model.decoding_session()
    session = model.decoding_session(decoding_mode="ar", max_new_tokens=3)
    assert session.options["decoding_mode"] == "ar"
    with pytest.raises(ValueError, match="attends within itself"):
        model.nll(
            {
                "input_ids": torch.tensor([[MMU, SOI, FIRST, EOI, 7]]),
                "sample_ids": torch.zeros(1, 5, dtype=torch.int64),
                "context_mask": torch.ones(1, 5, dtype=torch.bool),
                "block_ids": torch.full((1, 5), -1),
            }
        )
