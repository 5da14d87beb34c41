"""A hundred constrained responses of the bundled checkpoint for each grammar and strategy."""

import json
import re
from typing import Any

import pytest
import torch

from unidiff.bundled import bundled_checkpoint
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor

pytest.importorskip("outlines_core")
pytestmark = pytest.mark.slow

NUM_ROWS = 100
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "size": {"type": "number"},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2},
    },
    "required": ["name", "size", "tags"],
}
# Digits are spelled out: Rust's \d has 100 digits that the Unicode of Python 3.11 lacks.
GRAMMARS: list[dict[str, Any]] = [
    {"regex": r"[0-9]{4}-[0-9]{2}-[0-9]{2}"},
    {"regex": r"(yes|no|perhaps)( [a-z]+){0,3}\."},
    {"regex": r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?"},
    {"json_schema": SCHEMA},
]
STRATEGIES = [
    {"unmasking_strategy": "threshold"},
    {"unmasking_strategy": "random", "max_denoising_steps": 4},
    {"unmasking_strategy": "entropy_bound", "block_length": 12},
    {"decoding_mode": "self_speculative"},
]


@pytest.fixture(scope="module")
def model() -> UniDiffForBlockDiffusion:
    folder = bundled_checkpoint()
    return UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor() -> UniDiffProcessor:
    return UniDiffProcessor.from_pretrained(bundled_checkpoint())


def check(text: str, grammar: dict[str, Any]) -> None:
    if "regex" in grammar:
        assert re.fullmatch(grammar["regex"], text), text
        return
    values = json.loads(text)
    assert set(values) == {"name", "size", "tags"}
    assert isinstance(values["name"], str)
    assert len(values["name"]) <= 8
    assert isinstance(values["size"], (int, float))
    assert set(values["tags"]) <= {"red", "blue"}
    assert len(values["tags"]) <= 2


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda options: next(iter(options.values())))
@pytest.mark.parametrize("grammar", GRAMMARS, ids=["date", "answer", "number", "object"])
def test_every_one_of_a_hundred_responses_matches(
    grammar: dict,
    strategy: dict,
    model: UniDiffForBlockDiffusion,
    processor: UniDiffProcessor,
) -> None:
    prompt = processor.for_completion("x = ")["input_ids"]
    output = model.generate(
        prompt.repeat(NUM_ROWS, 1),
        tokenizer=processor.tokenizer,
        max_new_tokens=36,
        do_sample=True,
        seed=11,
        return_dict_in_generate=True,
        **grammar,
        **strategy,
    )
    texts = processor.tokenizer.batch_decode(
        output.sequences[:, prompt.shape[1] :], skip_special_tokens=True
    )
    assert len(texts) == NUM_ROWS
    for text in texts:
        check(text, grammar)
    assert len(set(texts)) > 1
