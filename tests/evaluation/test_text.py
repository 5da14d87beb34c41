"""Bits per byte of a model that knows nothing, where the answer is a logarithm."""

import math

import numpy as np
import pytest
import torch

from unidiff.evaluation.context import EvaluationContext
from unidiff.evaluation.text import (
    choose_windows,
    cut_windows,
    measure_text,
    text_batches,
    token_sizes,
)
from unidiff.tokens.text import encode_plain

SETTINGS = {
    "num_windows": 0,
    "window_length": 16,
    "block_length": 4,
    "num_samples": 2,
    "batch_size": 3,
}
TEXTS = ["def f(x):\n    return x  # naïve\n", "a photo of a sneaker. " * 5]


@pytest.fixture
def context(model, processor, monkeypatch):
    documents = [(f"module_{number}", text * 8) for number, text in enumerate(TEXTS)]
    monkeypatch.setattr("unidiff.evaluation.text.iter_documents", lambda split: documents)
    return EvaluationContext(None, model, processor, 0, 5)


@pytest.fixture
def clueless(model):
    """The same model with every weight zero: all allowed ids are equally likely."""
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    yield model
    model.load_state_dict(saved)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(context, clueless):
    bound, ar = measure_text(context, SETTINGS)
    layout = context.processor.layout
    allowed = int(layout.allowed_ids("text", clueless.config.vocab_size).sum())
    details = bound.details
    expected = details["num_tokens"] * math.log2(allowed) / details["num_bytes"]
    assert bound.value == pytest.approx(expected, rel=1e-5)
    assert ar.value == pytest.approx(expected, rel=1e-5)
    assert details["ratio_to_ar"] == pytest.approx(1.0, rel=1e-5)
    assert bound.conditions == {"at_most_1.25_times_ar": True}
    assert bound.aim == details["gzip_9_bits_per_byte"]
    assert bound.num_inputs == 5


def test_held_out_modules_are_what_is_scored(context, monkeypatch):
    asked = []
    documents = [("module", TEXTS[0])]
    monkeypatch.setattr(
        "unidiff.evaluation.text.iter_documents", lambda split: asked.append(split) or documents
    )
    bound, _ = measure_text(context, SETTINGS)
    assert asked == ["heldout"]
    assert bound.details["num_bytes"] == len(TEXTS[0].encode())


def test_windows_hold_every_token_and_every_byte_once(processor):
    windows = cut_windows(processor.tokenizer, TEXTS, 7)
    ids = [encode_plain(processor.tokenizer, text) for text in TEXTS]
    assert np.concatenate(windows.ids).tolist() == ids[0] + ids[1]
    assert windows.num_bytes.sum() == sum(len(text.encode()) for text in TEXTS)
    assert max(len(window) for window in windows.ids) == 7


def test_token_sizes_are_those_of_the_bytes(processor):
    sizes = token_sizes(processor.tokenizer)
    for text in TEXTS:
        assert sizes[encode_plain(processor.tokenizer, text)].sum() == len(text.encode())


def test_the_chosen_windows_are_spread_and_nested(processor):
    windows = cut_windows(processor.tokenizer, TEXTS * 10, 3)
    few, many = (choose_windows(windows, number) for number in (5, 20))
    numbers = {tuple(ids.tolist()) for ids in many.ids}
    assert {tuple(ids.tolist()) for ids in few.ids} <= numbers
    assert len(few.ids) == len(few.num_bytes) == 5
    everything = choose_windows(windows, len(windows.ids))
    assert np.array_equal(everything.num_bytes, windows.num_bytes)


def test_every_token_is_scored_in_a_block_of_the_length_stated(context):
    windows = cut_windows(context.processor.tokenizer, TEXTS, 10)
    batches = list(text_batches(context, windows, 4, 2))
    scored = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    assert scored == sum(len(ids) for ids in windows.ids)
    first = batches[0]
    assert first["block_ids"][0, :11].tolist() == [-1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert first["labels"][0, 0] == -100


def test_the_numbers_do_not_depend_on_the_batch_size(context):
    one, other = (
        measure_text(context, {**SETTINGS, "batch_size": size})[1].value for size in (1, 5)
    )
    assert one == pytest.approx(other, rel=1e-5)
