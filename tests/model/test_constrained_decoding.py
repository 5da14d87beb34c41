"""Grammars and allowed ids on a model: every mode and strategy, batches, canvases, bad input."""

import json
import re
from typing import Any

import pytest
import torch
from small_decoding import CANVAS, VOCAB, decode, prompts, responses, tiny_model
from small_grammars import tokenizer_of
from transformers import PreTrainedTokenizerFast
from transformers.generation import (
    NoBadWordsLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
)

from unidiff.generation.allowed import token_ids_of
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import UNMASKING_STRATEGIES
from unidiff.model.modeling import UniDiffForBlockDiffusion

pytest.importorskip("outlines_core")

END = 3
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = ["<pad>", "<mask>", "<bos>", "<end>", *"0123456789", *LETTERS, *'{}":,-.', "Ġ"]
REGEX = r"[a-c]+ is \d{1,3}(\.\d)?"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "yz"]}},
    "required": ["a", "b"],
}
FREE = {"eos_token_id": END}
MODES = [{"decoding_mode": mode} for mode in ("ar", "self_speculative", "auto")]
STRATEGIES = [{"unmasking_strategy": name} for name in UNMASKING_STRATEGIES]
BLOCKS = [
    {"block_length": 1},
    {"block_length": 40},
    {"block_length": 9, "sub_block_length": 4},
    {"block_delimiters": [5, 9, 40], "delimiter_threshold": 0.05},
    {"max_denoising_steps": 1},
    {"max_denoising_steps": 2, "confidence_metric": "sampled_prob"},
]


def name_of(options: dict) -> str:
    return "-".join(str(value) for value in options.values())


@pytest.fixture(scope="module")
def model() -> UniDiffForBlockDiffusion:
    return tiny_model("causal_context")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    assert len(TOKENS) == VOCAB
    special = {"pad_token": "<pad>", "mask_token": "<mask>", "bos_token": "<bos>"}
    return tokenizer_of(TOKENS, {**special, "eos_token": "<end>"})


def texts(output: Any, width: int, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The responses as text, without the end token."""
    found = []
    for ids in responses(output, width):
        assert END not in ids[:-1]
        found.append(tokenizer.decode(ids[:-1] if ids[-1:] == [END] else ids))
    return found


@pytest.mark.parametrize("options", [*STRATEGIES, *MODES, *BLOCKS], ids=name_of)
def test_every_response_matches(
    options: dict, model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([4, 7, 3])
    regexes = [REGEX, None, "(ab)*c"]
    shared = {"tokenizer": tokenizer, "seed": 2, "max_new_tokens": [9, 9, 12], **FREE, **options}
    output = decode(model, ids, mask, regex=regexes, **shared)
    found = texts(output, ids.shape[1], tokenizer)
    assert re.fullmatch(REGEX, found[0])
    assert re.fullmatch("(ab)*c", found[2])
    free = decode(
        model, ids[1:2], mask[1:2], **{**shared, "max_new_tokens": 9, "seed": output.row_seeds[1]}
    )
    assert responses(free, ids.shape[1])[0] == responses(output, ids.shape[1])[1]


@pytest.mark.parametrize("pattern", ["block_causal", "full"])
def test_other_attention_patterns_match_too(
    pattern: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([4, 8])
    model = tiny_model(pattern)
    output = decode(model, ids, mask, tokenizer=tokenizer, regex=REGEX, max_new_tokens=11, **FREE)
    assert all(re.fullmatch(REGEX, text) for text in texts(output, ids.shape[1], tokenizer))


@pytest.mark.parametrize("options", [{}, *MODES[:2], {"unmasking_strategy": "random"}], ids=name_of)
def test_schema_gives_objects_with_its_keys(
    options: dict, model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([5] * 4)
    settings = {"tokenizer": tokenizer, "seed": 4, "max_new_tokens": 24, **FREE, **options}
    output = decode(model, ids, mask, json_schema=SCHEMA, **settings)
    for text in texts(output, 5, tokenizer):
        values = json.loads(text)
        assert set(values) == {"a", "b"}
        assert isinstance(values["a"], int)
        assert values["b"] in ("x", "yz")
    again = decode(model, ids, mask, json_schema=json.dumps(SCHEMA), **settings)
    assert torch.equal(again.sequences, output.sequences)


@pytest.mark.parametrize("options", [{}, *MODES[:2], {"max_denoising_steps": 1}], ids=name_of)
def test_choices_are_one_of_the_strings(
    options: dict, model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([5] * 12)
    choices = ["yes", "no", "yesterday"]
    settings = {"tokenizer": tokenizer, "seed": 4, "max_new_tokens": 9, **FREE, **options}
    output = decode(model, ids, mask, choices=choices, **settings)
    found = set(texts(output, 5, tokenizer))
    assert found <= set(choices)
    assert len(found) > 1
    rows = [["a"], None, *[["b", "cc"]] * 10]
    found_rows = texts(decode(model, ids, mask, choices=rows, **settings), 5, tokenizer)
    assert found_rows[0] == "a"
    assert set(found_rows[2:]) <= {"b", "cc"}


@pytest.mark.parametrize(
    "options",
    [{}, {"unmasking_strategy": "random"}, *MODES[:2], {"guidance_scale": 2.0}],
    ids=name_of,
)
def test_batched_row_equals_the_row_alone(
    options: dict, model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    lengths, limits = [9, 3, 6], [14, 9, 12]
    regexes = [REGEX, "[x-z]{2,8}", None]
    ids, mask = prompts(lengths)
    shared = {"tokenizer": tokenizer, **FREE, **options}
    if "guidance_scale" in options:
        shared["negative_input_ids"] = torch.tensor([[7, 8, 9]])
    together = decode(model, ids, mask, seed=3, max_new_tokens=limits, regex=regexes, **shared)
    for row, length in enumerate(lengths):
        bare = ids[row : row + 1, ids.shape[1] - length :]
        alone = decode(
            model,
            bare,
            torch.ones_like(bare),
            seed=together.row_seeds[row],
            max_new_tokens=limits[row],
            regex=regexes[row],
            **shared,
        )
        assert responses(alone, length)[0] == responses(together, ids.shape[1])[row]
        assert alone.num_forwards[0] == together.num_forwards[row]


def test_greedy_self_speculation_equals_ar_under_a_grammar(
    model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([4, 6])
    settings = {"tokenizer": tokenizer, "regex": REGEX, "max_new_tokens": 16, **FREE}
    settings["do_sample"] = False
    one, other = (decode(model, ids, mask, **settings, **mode) for mode in MODES[:2])
    assert torch.equal(one.sequences, other.sequences)


def test_canvas_matches_as_a_whole_around_what_is_pinned(
    model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([4, 4])
    canvas = torch.tensor([tokenizer.convert_tokens_to_ids([*"ab", "Ġ", *"is12", "<end>"])] * 2)
    pinned = torch.tensor([[False, False, True, True, True, False, False, True]] * 2)
    output = decode(
        model,
        ids,
        mask,
        canvas=canvas,
        pinned_mask=pinned,
        regex=r"([a-c]{2} is\d{2}|x+ is.*)",
        tokenizer=tokenizer,
        seed=1,
    )
    for row in output.canvas:
        assert torch.equal(row[pinned[0]], canvas[0][pinned[0]])
        assert re.fullmatch(r"[a-c]{2} is\d{2}|xx is..", tokenizer.decode(row[:-1]))


def test_canvas_positions_take_allowed_ids_only(
    model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([4, 5])
    canvas, pinned = torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.bool)
    digits = token_ids_of(tokenizer)
    allowed: list[Any] = [digits, [20, 21], None, digits]
    given = {"canvas": canvas, "pinned_mask": pinned, "seed": 5}
    output = decode(model, ids, mask, canvas_allowed_ids=allowed, **given)
    for row in output.canvas.tolist():
        assert row[0] in digits
        assert row[1] in (20, 21)
        assert row[3] in digits
    mask_KV = torch.ones(4, VOCAB, dtype=torch.bool)
    for place in (0, 1, 3):
        mask_KV[place] = False
        mask_KV[place, allowed[place]] = True
    for same in (mask_KV, mask_KV.expand(2, 4, VOCAB), [allowed, allowed]):
        again = decode(model, ids, mask, canvas_allowed_ids=same, **given)
        assert torch.equal(again.canvas, output.canvas)
    both = decode(
        model,
        ids,
        mask,
        canvas_allowed_ids=allowed,
        regex=r"\d{2}.\d|[0-9][g-q]11",
        tokenizer=tokenizer,
        **given,
    )
    assert (both.canvas[:, 3] == digits[1]).all()
    assert (both.canvas[:, 2] == digits[1]).all()


def test_processors_of_transformers_keep_their_promise(
    model: UniDiffForBlockDiffusion, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids, mask = prompts([4, 5])
    banned = list(range(4, 40))
    rules = [
        NoBadWordsLogitsProcessor([[40]], eos_token_id=END),
        SuppressTokensLogitsProcessor(banned),
        TemperatureLogitsWarper(0.5),
    ]
    for mode in ({}, *MODES[:2]):
        settings = {"seed": 1, "max_new_tokens": 9, **mode}
        output = decode(model, ids, mask, logits_processor=rules, **settings)
        found = {token for row in responses(output, 5) for token in row}
        assert found
        assert not found & {40, *banned}
    # In a fixed order, for a warper also changes what positions are ranked by.
    order = {"seed": 1, "unmasking_strategy": "sequential"}
    cooled = decode(model, ids, mask, logits_processor=rules[2:], temperature=1.0, **order)
    plain = decode(model, ids, mask, temperature=0.5, **order)
    assert torch.equal(cooled.sequences, plain.sequences)
    with_grammar = decode(
        model,
        ids,
        mask,
        seed=1,
        regex="[a-z]{4}",
        tokenizer=tokenizer,
        max_new_tokens=9,
        logits_processor=[SuppressTokensLogitsProcessor(list(range(14, 38)))],
        **FREE,
    )
    assert set("".join(texts(with_grammar, 5, tokenizer))) <= set("yz")


BAD = [
    ({"regex": "abcdefg"}, r"takes 7 tokens: raise max_new_tokens"),
    ({"regex": "abc", "eos_token_id": -1}, r"takes 3 tokens, but with eos_token_id=\[\]"),
    ({"regex": "abc", "suppress_eos_before": 5}, r"suppress_eos_before=5 none may end"),
    ({"regex": "é"}, r"can write no text"),
    ({"regex": "a", "json_schema": {}}, r"give one of them"),
    ({"regex": "a", "tokenizer": None}, r"need tokenizer="),
    ({"regex": "a", "stop_strings": ["a"]}, r"stop_strings cut"),
    ({"regex": ["a"]}, r"regex has 1 values for 2 rows"),
    ({"choices": ["é"]}, r"at least one of the model's tokens"),
    ({"choices": []}, r"at least one text"),
    ({"choices": ["a", ""]}, r"no empty one"),
    ({"canvas_allowed_ids": [[5]]}, r"needs the canvas"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_met_raises_before_the_first_forward(
    options: dict,
    message: str,
    model: UniDiffForBlockDiffusion,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(model), "forward", None)
    ids, mask = prompts([4, 4])
    settings = {"tokenizer": tokenizer, "max_new_tokens": 5, **FREE, **options}
    with pytest.raises(ValueError, match=message):
        decode(model, ids, mask, **settings)


CANVASES = [
    ({"regex": "ab"}, ValueError, r"cannot match regex='ab': no tokens in its 2 masked places"),
    ({"canvas_allowed_ids": [[9], None, None]}, ValueError, r"position 0 is given as id 14"),
    ({"canvas_allowed_ids": [None, [1], None]}, ValueError, r"position 1 without any text id"),
    ({"canvas_allowed_ids": [None, None]}, ValueError, r"has 2 positions, the canvas has 3"),
    ({"canvas_allowed_ids": [None, [99], None]}, ValueError, r"must lie in \[0, 48\)"),
    ({"canvas_allowed_ids": [None, ["a"], None]}, TypeError, r"needs a list of ids"),
    ({"canvas_allowed_ids": torch.ones(3, 48)}, TypeError, r"must be bool"),
    ({"canvas_allowed_ids": torch.ones(2, 48, dtype=torch.bool)}, ValueError, r"must have shape"),
    ({"canvas_allowed_ids": "digits"}, TypeError, r"must be a bool tensor"),
]


@pytest.mark.parametrize(("options", "error", "message"), CANVASES)
def test_contradictions_on_a_canvas_are_named(
    options: dict,
    error: type[Exception],
    message: str,
    model: UniDiffForBlockDiffusion,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(model), "forward", None)
    ids, mask = prompts([4])
    canvas = torch.tensor([[14, 0, 0]])
    pinned = torch.tensor([[True, False, False]])
    with pytest.raises(error, match=message):
        decode(model, ids, mask, canvas=canvas, pinned_mask=pinned, tokenizer=tokenizer, **options)


def test_edits_under_a_grammar_are_refused_and_remasking_is_not(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_model("causal_context", trained_on_visible=True)
    ids, mask = prompts([4, 6])
    settings = {"tokenizer": tokenizer, "regex": REGEX, "max_new_tokens": 2 * CANVAS, **FREE}
    with pytest.raises(ValueError, match="revision='edit' rewrites"):
        decode(model, ids, mask, revision="edit", **settings)
    uniform = tiny_model("causal_context", noise_process="uniform", uniform_prediction="posterior")
    for anew in ({"revision": "renoise"}, {"unmasking_strategy": "ancestral"}):
        with pytest.raises(ValueError, match="decide every token anew"):
            decode(uniform, ids, mask, **settings, **anew)
    for revision in ("secondary", lambda ids, revisable: revisable.double()):
        output = decode(model, ids, mask, revision=revision, **settings)
        assert all(re.fullmatch(REGEX, text) for text in texts(output, 6, tokenizer))


def test_a_session_lends_its_tokenizer_to_requests(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("causal_context")
    ids, _ = prompts([4])
    session = model.decoding_session(regex=REGEX, tokenizer=tokenizer, **FREE)
    request = session.submit(GenerationInputs(ids), max_new_tokens=2 * CANVAS, seed=3)
    session.run()
    assert all(re.fullmatch(REGEX, text) for text in texts(request.output, 4, tokenizer))
