"""Lumina-DiMOO draws: a whole picture of its own ids, in rows, equal to its published loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.tokens.layout import TokenLayout
from unidiff.tokens.prompts import empty_canvas, prompts_with_canvases
from unidiff.tokens.sequence import SequenceEncoder, run_of

from .published import write_json
from .published_lumina import (
    ANSWER_END,
    CLOSING,
    CODES_FROM,
    LUMINA,
    MASK,
    NUM_CODES,
    OPENING,
    ROW_END,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LUMINA.write(tmp_path_factory.mktemp("lumina") / "foreign", LUMINA.model())


@pytest.fixture(scope="module")
def model(folder: Path) -> UniDiffForBlockDiffusion:
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    small = {**model.config.token_layout, "image_grid": [2, 3]}  # as a processor may ask for
    model.config.token_layout = small
    return model


def test_ids_of_pictures_are_the_published_ones(folder: Path) -> None:
    layout = UniDiffForBlockDiffusion.from_pretrained(folder).config.layout
    codes = np.array([[7, 8, 9] * 10 + [0, NUM_CODES - 1]] * 32)
    ids = SequenceEncoder(None, layout).codes("image", codes).ids_L
    row = [*range(CODES_FROM + 7, CODES_FROM + 10)] * 10 + [CODES_FROM, CODES_FROM + NUM_CODES - 1]
    assert ids.tolist() == [OPENING, *([*row, ROW_END] * 32), CLOSING]
    assert ANSWER_END in layout.end_token_ids


def drawn(logits, prompt: list[int], num_rows: int, columns: int) -> list[int]:
    """The published loop at temperature 0: the code of the highest probability first.

    Args:
        logits: (1, L) ids -> (L, V).
        prompt: ids before the picture.
        num_rows: of the picture.
        columns: of the picture.
    """
    row = torch.tensor([*prompt, *([MASK] * columns + [ROW_END]) * num_rows])
    while bool((row == MASK).any()):
        law = logits(row[None])[:, CODES_FROM:].double().softmax(-1)
        best = law.amax(-1).masked_fill(row != MASK, -1.0)
        place = int(best.argmax())
        row[place] = CODES_FROM + law[place].argmax()
    return row.tolist()


def test_a_drawing_equals_the_published_loop(model: UniDiffForBlockDiffusion) -> None:
    theirs, prompt = LUMINA.model(), [4, 9, 30, OPENING]
    expected = drawn(lambda ids: LUMINA.logits(theirs, ids)[0], prompt, 2, 3)
    layout: TokenLayout = model.config.layout
    canvas = empty_canvas("image", layout)
    inputs = prompts_with_canvases([run_of(prompt, "text")], [canvas], layout)
    found = model.generate(**inputs, do_sample=False, unmasking_strategy="static")
    assert found[0].tolist() == expected


def test_a_picture_in_the_prompt_stands_in_a_line(model: UniDiffForBlockDiffusion) -> None:
    """Positions: those of the reference, which counts tokens."""
    theirs, layout = LUMINA.model(), model.config.layout
    picture = SequenceEncoder(None, layout).codes("image", np.arange(6)).ids_L.tolist()
    prompt = [4, *picture, 9]
    ids = torch.tensor([[*prompt, MASK]])
    logits = LUMINA.logits(theirs, ids)[0, -1]
    logits[CODES_FROM:] = -torch.inf
    logits[MASK] = -torch.inf
    found = model.generate(
        torch.tensor([prompt]), max_new_tokens=1, do_sample=False, eos_token_id=-1
    )
    assert found[0, -1] == logits.argmax()


def test_chats_are_written_in_tags(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    processor = UniDiffProcessor.from_pretrained(folder)
    chat = [{"role": "user", "content": "hi"}]
    text = processor.apply_chat_template(chat, tokenize=False)
    assert text.startswith("<system>You are a multimodal model")
    assert text.endswith("</system><user>hi</user><answer>")
    with pytest.raises(ValueError, match=r"needs image_tokenizer="):
        processor.for_image("a cat")


def test_too_few_rows_are_named(folder: Path, tmp_path: Path) -> None:
    short = LUMINA.model()
    short.resize_token_embeddings(400)
    other = LUMINA.write(tmp_path / "short", short)
    with pytest.raises(ValueError, match="has 400 rows of the embedding"):
        UniDiffForBlockDiffusion.from_pretrained(other)
    write_json(other / "config.json", {**LUMINA.config, "architectures": ["LLaDAModelLM"]})
    with pytest.raises(ValueError, match=r"by config\.json"):
        UniDiffForBlockDiffusion.from_pretrained(other)
