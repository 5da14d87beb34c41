"""Guidance is learnt: what the teacher says under guidance becomes what one branch says."""

import copy

import numpy as np
import pytest
import torch

from unidiff.bundled import bundled_checkpoint
from unidiff.data.stream import MixtureStream, Weighted
from unidiff.data.tasks import RowMaker, drawing_messages
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.training.guidance_term import GuidanceTerm, dropped_row


class Drawings:
    """Requests for pictures of random codes."""

    name = "drawings"

    def __init__(self, maker):
        self.maker = maker

    def __len__(self):
        return 8

    def row(self, index, rng):
        codes = rng.integers(0, 240, 64)
        return self.maker.conversation(drawing_messages(f"draw {'a' * (1 + index)}.", codes), rng)


@pytest.fixture(scope="module")
def parts():
    folder = bundled_checkpoint()
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    processor = UniDiffProcessor.from_pretrained(folder)
    maker = RowMaker(processor.encoder)
    return model, processor, maker, MixtureStream([Weighted(Drawings(maker), 1)], 8, seed=0)


def term(parts, **given):
    model, _, maker, stream = parts
    fields = {"scale": 3.0, "batch_size": 4} | given
    return GuidanceTerm(copy.deepcopy(model), stream, maker, **fields)


def test_the_dropped_row_is_the_weaker_request_and_the_same_picture(parts):
    _, processor, maker, stream = parts
    row = stream[0]["row"]
    dropped = dropped_row(maker, row)
    request = processor.for_dropped_condition("image")["input_ids"][0].numpy()
    assert np.array_equal(dropped.input_ids[: len(request)], request)
    assert np.array_equal(dropped.input_ids[dropped.labels >= 0], row.input_ids[row.labels >= 0])


def test_both_branches_show_and_hide_the_same_codes(parts):
    model, _, _, stream = parts
    asked, dropped = term(parts).branches([stream[item] for item in range(4)], model)
    for row in range(4):
        shown = [one.inputs["input_ids"][row][-64:] for one in (asked, dropped)]
        assert torch.equal(*shown)
        assert 0 < int((shown[0] == model.config.mask_token_id).sum()) <= 64


def test_the_law_compared_is_the_guided_one_at_its_temperature(parts):
    model, _, _, stream = parts
    one = term(parts, temperature=0.5, batch_size=2)
    asked, dropped = one.branches([stream[0], stream[1]], model)
    codes = slice(*_image_ids(model))
    with torch.no_grad():
        strong, weak = (part.logits(model)[:, codes].double() for part in (asked, dropped))
        guided = ((weak + 3.0 * (strong - weak)) / 0.5).softmax(-1)
        expected = (guided * (guided.log() - (strong / 0.5).log_softmax(-1))).sum(-1).mean()
        assert float(one(model, model, 0)) == pytest.approx(float(expected), rel=1e-4)


def _image_ids(model):
    own = model.config.layout.range_of("image")
    return own.start, own.stop


def test_at_scale_one_the_student_has_nothing_to_learn(parts):
    model = parts[0]
    with torch.no_grad():
        assert float(term(parts, scale=1.0)(model, model, 0)) == pytest.approx(0.0, abs=1e-6)


def test_steps_down_the_term_bring_one_branch_to_the_guided_law(parts):
    student = copy.deepcopy(parts[0]).train()
    one = term(parts, temperature=0.5)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)
    values = []
    for _ in range(6):
        loss = one(student, student, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.7 * values[0]
    assert not any(weight.requires_grad for weight in one.teacher.parameters())


@pytest.mark.parametrize(
    "fields", [{"scale": 0.0}, {"temperature": 0.0}, {"weight": -1.0}, {"batch_size": 0}]
)
def test_numbers_that_mean_nothing_are_refused(parts, fields):
    with pytest.raises(ValueError, match="a guidance term needs"):
        term(parts, **fields)


def test_a_row_that_draws_no_whole_picture_is_refused(parts):
    maker = parts[2]
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    with pytest.raises(ValueError, match="one picture of 64 codes"):
        dropped_row(maker, maker.conversation(said, np.random.default_rng(0)))
