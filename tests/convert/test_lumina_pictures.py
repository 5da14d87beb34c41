"""Lumina-DiMOO with its picture tokenizer: prompts of published ids, and pictures drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.writing import convert_checkpoint

from .published_images import LUMINA as VQ
from .published_images import PublishedImages
from .published_lumina import (
    ANSWER,
    ANSWER_END,
    CLOSING,
    CODES_FROM,
    LUMINA,
    MASK,
    NOTHING,
    NUM_CODES,
    OPENING,
    ROW_END,
    SYSTEM,
    SYSTEM_END,
    USER,
    USER_END,
    write_whole_tokenizer,
)
from .reference_images import Diffusers

# As Alpha-VLLM's prompt_utils.py has them.
DRAW = "Generate an image according to the text prompt."
EDIT = "Generate an image applying the following editing instruction based on the original image."
READ = (
    "You are a multimodal model that can process both text and images. Answer the following "
    "question based on the provided images. Analyze each image and combine relevant details to "
    "answer."
)
SIDE = 32  # codes
TINY = (2, 3)  # rows and columns of what the tiny model draws


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The model and its picture tokenizer, as they are published."""
    root = tmp_path_factory.mktemp("lumina")
    model = LUMINA.write(root / "lumina", LUMINA.model())
    write_whole_tokenizer(model)
    vq = Diffusers({**VQ, "num_vq_embeddings": NUM_CODES})
    published = PublishedImages(
        "diffusers", "vqvae", lambda: vq, "diffusion_pytorch_model.safetensors", 0.0
    )
    return model, published.write(root / "vqvae", vq)


@pytest.fixture
def tiny(folders: tuple[Path, Path]) -> UniDiffProcessor:
    """The processor of pictures of few codes."""
    made = UniDiffProcessor.from_pretrained(folders[0], image_tokenizer=folders[1])
    made.layout = replace(made.layout, image_grid=TINY)
    return made


def said(processor: UniDiffProcessor, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def asked(processor: UniDiffProcessor, task: str, ids: list[int]) -> list[int]:
    """A system's and a user's turn."""
    return [SYSTEM, *said(processor, task), SYSTEM_END, USER, *ids, USER_END]


def in_rows(ids: list[int]) -> list[int]:
    """A whole picture of 32 x 32 ids."""
    rows = [[*ids[start : start + SIDE], ROW_END] for start in range(0, SIDE**2, SIDE)]
    return [OPENING, *(one for row in rows for one in row), CLOSING]


def test_a_wish_for_a_picture_is_written_as_published(processor: UniDiffProcessor) -> None:
    wish = processor.for_image("a red cat")
    expected = asked(processor, DRAW, said(processor, "a red cat"))
    assert wish["input_ids"].tolist() == [[*expected, ANSWER, OPENING]]
    drawn = [*in_rows([MASK] * SIDE**2)[1:], ANSWER_END]
    assert wish["canvas"].tolist() == [drawn]
    assert wish["pinned_mask"].tolist() == [[one != MASK for one in drawn]]
    dropped = processor.for_dropped_condition("image")["input_ids"]
    assert dropped.tolist() == [[*asked(processor, DRAW, [NOTHING]), ANSWER, OPENING]]


def test_a_question_about_a_picture_is_written_as_published(processor: UniDiffProcessor) -> None:
    """The picture stands right before the end of the turn, wherever it was passed."""
    codes = np.arange(SIDE**2) * 7
    content = [{"type": "image", "codes": codes}, {"type": "text", "text": "what </user>?"}]
    ids = processor.for_chat([{"role": "user", "content": content}])["input_ids"].tolist()
    picture = in_rows((codes + CODES_FROM).tolist())
    plain = processor.encoder.text("what </user>?").ids_L.tolist()
    assert USER_END not in plain
    assert ids == [[*asked(processor, READ, [*plain, *picture]), ANSWER]]


def test_a_picture_becomes_codes_in_rows(processor: UniDiffProcessor) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (160, 128, 3), dtype=np.uint8)
    content = [{"type": "text", "text": "what?"}, {"type": "image", "image": pixels}]
    ids = processor.for_chat([{"role": "user", "content": content}])["input_ids"][0].tolist()
    middle = torch.tensor(pixels[16:144]).permute(2, 0, 1)[None] / 127.5 - 1
    codes = processor.image_tokenizer.encode(middle).flatten() + CODES_FROM
    assert len(codes.unique()) > 30
    picture = in_rows(codes.tolist())
    assert ids[-len(picture) - 2 :] == [*picture, USER_END, ANSWER]


def test_an_edit_is_written_as_published(processor: UniDiffProcessor) -> None:
    codes = np.zeros(SIDE**2, dtype=np.int64)
    content = [{"type": "image", "codes": codes}, {"type": "text", "text": "in blue"}]
    ids = processor.for_image([{"role": "user", "content": content}])["input_ids"].tolist()
    picture = in_rows([CODES_FROM] * SIDE**2)
    turns = asked(processor, EDIT, [*said(processor, "in blue"), *picture])
    assert ids == [[*turns, ANSWER, OPENING]]


def test_training_says_what_a_request_says(processor: UniDiffProcessor) -> None:
    codes = np.arange(SIDE**2)
    wish = {"role": "user", "content": "a red cat"}
    answer = {"role": "assistant", "content": [{"type": "image", "codes": codes}]}
    row = processor.encoder.conversation([wish, answer])
    request = processor.for_image("a red cat")
    prompt, canvas = request["input_ids"][0].tolist(), request["canvas"][0].tolist()
    assert row.ids_L[: len(prompt)].tolist() == prompt
    filled = row.ids_L[len(prompt) :]
    assert np.where(filled >= CODES_FROM, MASK, filled).tolist() == canvas
    assert row.is_wanted_L.tolist() == [False] * len(prompt) + [one == MASK for one in canvas]


def test_a_system_of_the_users_own_stays(processor: UniDiffProcessor) -> None:
    chat = [{"role": "system", "content": "Be bold."}, {"role": "user", "content": "a cat"}]
    ids = processor.for_image(chat)["input_ids"].tolist()
    assert ids == [[*asked(processor, "Be bold.", said(processor, "a cat")), ANSWER, OPENING]]


def test_a_text_alone_is_written_as_without_a_picture_tokenizer(
    processor: UniDiffProcessor, folders: tuple[Path, Path]
) -> None:
    plain = UniDiffProcessor.from_pretrained(folders[0])
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    one, two = (each.for_chat(chat)["input_ids"].tolist() for each in (processor, plain))
    assert one == two
    assert one[0][-1] == ANSWER


def test_a_guided_drawing_equals_the_published_loop(
    tiny: UniDiffProcessor, folders: tuple[Path, Path]
) -> None:
    """At temperature 0 and a code a step: logits 5 c - 4 u, the surest code first."""
    model = UniDiffForBlockDiffusion.from_pretrained(folders[0], dtype=torch.float32)
    wish, dropped = tiny.for_image("a red cat"), tiny.for_dropped_condition("image")
    theirs, num_codes = LUMINA.model(), TINY[0] * TINY[1]
    prompts = [one["input_ids"][0].tolist() for one in (wish, dropped)]
    canvas = torch.tensor([*([MASK] * TINY[1] + [ROW_END]) * TINY[0], CLOSING, ANSWER_END])
    for _ in range(num_codes):
        rows = [torch.cat([torch.tensor(prompt), canvas])[None] for prompt in prompts]
        clear, weak = (LUMINA.logits(theirs, row)[0, -len(canvas) :] for row in rows)
        law = (5 * clear - 4 * weak)[:, CODES_FROM:].double().softmax(-1)
        place = int(law.amax(-1).masked_fill(canvas != MASK, -1.0).argmax())
        canvas[place] = CODES_FROM + law[place].argmax()
    out = model.generate(
        **wish,
        negative_input_ids=dropped["input_ids"],
        guidance_scale=5.0,
        do_sample=False,
        unmasking_strategy="static",
    )
    assert out[0].tolist() == [*prompts[0], *canvas.tolist()]
    drawn = tiny.post_process(out, wish)[0]
    assert drawn.size == (TINY[1] * 4, TINY[0] * 4)
    codes = canvas[canvas >= CODES_FROM] - CODES_FROM
    pixels = tiny.image_tokenizer.decode(codes.view(1, *TINY))[0].permute(1, 2, 0)
    assert np.abs(np.asarray(drawn) - ((pixels + 1) * 127.5).numpy()).max() <= 1


def test_a_converted_folder_writes_the_same(
    folders: tuple[Path, Path], processor: UniDiffProcessor, tmp_path: Path
) -> None:
    native = convert_checkpoint(folders[0], tmp_path / "native", image_tokenizer=folders[1])
    again = UniDiffProcessor.from_pretrained(native)
    assert again.layout == processor.layout
    requests: list[Any] = [
        lambda one: one.for_image("a red cat")["canvas"],
        lambda one: one.for_image("a red cat")["input_ids"],
        lambda one: one.for_dropped_condition("image")["input_ids"],
    ]
    for request in requests:
        assert torch.equal(request(again), request(processor))


def test_a_tokenizer_without_the_tags_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = LUMINA.write(tmp_path / "lumina", LUMINA.model())
    with pytest.raises(ValueError, match=r"lacks the tokens \['<system>', .*'126351', '126354'"):
        UniDiffProcessor.from_pretrained(folder, image_tokenizer=folders[1])
