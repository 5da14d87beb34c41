"""A user's texts: all forms are read, cut, and made into rows that blocks fit into."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from unidiff.data.blocks import IGNORED, NO_BLOCK, BlockOptions
from unidiff.data.corpus import Corpus, tokenised
from unidiff.tokens.prompts import layout_for_tokenizer
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.tokens.text import build_text_tokenizer

END, BOS = 3, 2


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def encoder_of(**names: Any) -> SequenceEncoder:
    tokenizer = build_text_tokenizer(["abc"], vocab_size=300)
    for name, value in names.items():
        setattr(tokenizer, name, value)
    return SequenceEncoder(tokenizer, layout_for_tokenizer(tokenizer, {}))


@pytest.fixture(scope="module")
def encoder() -> SequenceEncoder:
    return encoder_of()


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def samples_of(table: Any, encoder: SequenceEncoder) -> list[tuple[str, str]]:
    """(text, mark of each token: w for wanted) of each sample."""
    return [
        (
            encoder.tokenizer.decode(one["ids"].tolist()),
            "".join("w" if wanted else "-" for wanted in one["wanted"]),
        )
        for one in (table[index] for index in range(len(table)))
    ]


def test_a_text_is_cut_into_windows_behind_the_first_token(encoder, tmp_path):
    source = write(tmp_path, [{"text": "0123456789"}, {"text": "x"}])
    found = samples_of(tokenised(source, encoder, 5), encoder)
    assert found == [
        ("<|bos|>0123", "-wwww"),
        ("<|bos|>4567", "-wwww"),
        ("<|bos|>89<|end|>", "-www"),
        ("<|bos|>x<|end|>", "-ww"),
    ]


def test_without_a_first_token_windows_overlap_by_one(tmp_path):
    encoder = encoder_of(bos_token=None)
    source = write(tmp_path, [{"text": "0123456"}, {"text": ""}])
    found = samples_of(tokenised(source, encoder, 4), encoder)
    assert found == [("0123", "-www"), ("3456", "-www"), ("6<|end|>", "-w")]


def test_a_completion_and_its_end_are_wanted(encoder, tmp_path):
    rows = [{"prompt": "1+2=", "completion": "3"}, {"prompt": "too long", "completion": "4"}]
    found = samples_of(tokenised(write(tmp_path, rows), encoder, 8), encoder)
    assert found == [("<|bos|>1+2=3<|end|>", "-----ww")]


def test_what_the_assistant_says_is_wanted(encoder, tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}]
    found = samples_of(tokenised(write(tmp_path, [{"messages": turns}]), encoder, 32), encoder)
    assert found == [("<|bos|><|user|>a<|end|><|assistant|>bc<|end|>", "-----www")]


def test_the_same_source_is_tokenised_once(encoder, tmp_path, monkeypatch):
    source = write(tmp_path, [{"text": "0123"}])
    first = samples_of(tokenised(source, encoder, 8), encoder)
    monkeypatch.setattr("unidiff.data.corpus._windows", None)
    assert samples_of(tokenised(source, encoder, 8), encoder) == first
    with pytest.raises(TypeError):
        tokenised(source, encoder, 7)  # another size is another result


@pytest.mark.parametrize(
    ("rows", "length", "message"),
    [
        ([{"words": "a"}], 8, "needs the columns messages, or prompt and completion, or text"),
        ([{"prompt": "1234567890", "completion": "b"}], 8, "nothing is wanted"),
        ([{"text": "a"}], 1, "length must be >= 2"),
    ],
)
def test_data_that_cannot_be_used_is_refused(encoder, tmp_path, rows, length, message):
    with pytest.raises(ValueError, match=message):
        tokenised(write(tmp_path, rows), encoder, length)


def test_on_a_grid_the_last_block_is_filled_with_end_tokens(encoder, tmp_path):
    table = tokenised(write(tmp_path, [{"prompt": "12=", "completion": "3"}]), encoder, 16)
    blocks = BlockOptions(max_block_length=4, grid=True)
    row = Corpus("sums", table, encoder.layout, blocks).row(0, np.random.default_rng(0))
    assert row.block_ids.tolist() == [NO_BLOCK] * 4 + [1] * 4
    assert row.labels.tolist()[4:] == [row.input_ids[4], END, END, END]
    assert (row.labels[:4] == IGNORED).all()


def test_a_block_that_is_full_is_not_filled(encoder, tmp_path):
    table = tokenised(write(tmp_path, [{"prompt": "1=", "completion": "2345"}]), encoder, 16)
    blocks = BlockOptions(max_block_length=4, grid=True)
    row = Corpus("sums", table, encoder.layout, blocks).row(0, np.random.default_rng(0))
    assert len(row) == 8


def test_blocks_of_one_length_begin_behind_the_prompt(encoder, tmp_path):
    table = tokenised(write(tmp_path, [{"prompt": "1=", "completion": "23456"}]), encoder, 16)
    blocks = BlockOptions(max_block_length=4, min_block_length=4, prob_end_fill=0.0)
    row = Corpus("sums", table, encoder.layout, blocks).row(0, np.random.default_rng(0))
    assert row.block_ids.tolist() == [NO_BLOCK] * 3 + [0] * 4 + [1] * 2
    assert row.input_ids[0] == BOS
