"""The autoregressive reading of the same weights on the same holes, greedy, to the line's end."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from unidiff.plugins import Example
from unidiff.tokens.prompts import batch_prompts
from unidiff.tokens.sequence import run_of
from unidiff.tokens.text import encode_plain

LONGEST = 48  # tokens; the longest lines measured have some 40


@torch.inference_mode()
def prefix_only(
    model: Any, processor: Any, examples: Sequence[Example], before: int, batch_size: int
) -> list[str]:
    """The line that the end of the prefix (`before` tokens) goes on with."""
    tokenizer = processor.tokenizer
    prompts = [encode_plain(tokenizer, one["prefix"])[-before:] for one in examples]
    return _continued(model, processor, prompts, batch_size)


@torch.inference_mode()
def suffix_first(
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    before: int,
    after: int,
    batch_size: int,
) -> list[str]:
    """As `prefix_only`, with the begin of the suffix (`after` tokens) and a line end before it."""
    tokenizer = processor.tokenizer
    prompts = [
        [
            *encode_plain(tokenizer, one["suffix"])[:after],
            *encode_plain(tokenizer, "\n"),
            *encode_plain(tokenizer, one["prefix"])[-before:],
        ]
        for one in examples
    ]
    return _continued(model, processor, prompts, batch_size)


def cut_to_length(processor: Any, texts: Iterable[str], examples: Iterable[Example]) -> list[str]:
    """The texts without the tokens beyond the true length, for whoever knows it."""
    tokenizer = processor.tokenizer
    pairs = zip(texts, examples, strict=True)
    return [
        str(processor.decode(np.array(encode_plain(tokenizer, text)[: _length(tokenizer, one)])))
        for text, one in pairs
    ]


def _length(tokenizer: Any, example: Example) -> int:
    """Tokens of what belongs into the hole."""
    return len(encode_plain(tokenizer, example["middle"]))


def _continued(
    model: Any, processor: Any, prompts: Sequence[Sequence[int]], batch_size: int
) -> list[str]:
    """The rest of the line behind each prompt."""
    begin = processor.encoder.special("<|bos|>")
    texts = []
    for start in range(0, len(prompts), batch_size):
        rows = [run_of([begin, *ids], "text") for ids in prompts[start : start + batch_size]]
        inputs = {n: t.to(model.device) for n, t in batch_prompts(rows, processor.layout).items()}
        output = model.generate(
            **inputs,
            decoding_mode="ar",
            do_sample=False,
            max_new_tokens=LONGEST,
            stop_strings=["\n"],
            tokenizer=processor.tokenizer,
            return_dict_in_generate=True,
        )
        generated = output.sequences[:, inputs["input_ids"].shape[1] :]
        texts += [processor.decode_text(row).split("\n")[0].rstrip() for row in generated]
    return texts
