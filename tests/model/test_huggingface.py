"""`generate` under the contract of transformers: options, saving, pipeline, peft, bad input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    SuppressTokensLogitsProcessor,
    TextDiffusionStreamer,
    TextStreamer,
    TopPLogitsWarper,
    pipeline,
)

from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.generation.options import OPTIONS
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import contiguous_layout

SPECIALS = ("<pad>", "<mask>", "<bos>", "<eos>")
NUM_TEXT, NUM_IMAGE, NUM_ACTION = 260, 20, 16
LAYOUT = contiguous_layout(
    {"text": NUM_TEXT, "image": NUM_IMAGE, "action": NUM_ACTION},
    reserved_token_ids=(0, 1, 2),
    mask_token_id=1,
    pad_token_id=0,
    end_token_ids=(3,),
    image_grid=(2, 3),
    action_grid=(2, 2),
)


def tiny_model(**config: Any) -> UniDiffForBlockDiffusion:
    torch.manual_seed(11)
    settings = {
        "vocab_size": LAYOUT.num_ids,
        "hidden_size": 32,
        "intermediate_size": 48,
        "head_dim": 16,
        "canvas_length": 8,
        "initializer_range": 0.3,
        "token_layout": LAYOUT.to_dict(),
        **config,
    }
    return UniDiffForBlockDiffusion(UniDiffConfig(**settings)).eval()


@pytest.fixture(scope="module")
def model() -> UniDiffForBlockDiffusion:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One id per byte after the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        mask_token="<mask>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
    )


@pytest.fixture
def prompt() -> Tensor:
    return torch.tensor([[10, 20, 30, 40, 50]])


def test_sequences_hold_the_prompt_and_the_response(model: Any, prompt: Tensor) -> None:
    sequences = model.generate(prompt, max_new_tokens=11, eos_token_id=-1)
    assert sequences.shape == (1, 16)
    assert torch.equal(sequences[:, :5], prompt)
    assert int(sequences.max()) < NUM_TEXT
    assert torch.equal(sequences, model.generate(input_ids=prompt, max_length=16, eos_token_id=-1))


def test_default_length_is_one_canvas(model: Any, prompt: Tensor) -> None:
    assert model.generate(prompt, eos_token_id=-1).shape == (1, 5 + 8)


def test_zero_new_tokens_returns_the_prompt(model: Any, prompt: Tensor) -> None:
    output = model.generate(prompt, max_new_tokens=0, return_dict_in_generate=True)
    assert torch.equal(output.sequences, prompt)
    assert output.num_forwards.tolist() == [0]
    assert output.tokens_per_forward.tolist() == [0.0]
    assert output.finish_reason == ["length"]


def test_row_ends_at_the_first_end_token_with_padding_behind(model: Any) -> None:
    ids = torch.tensor([[10, 20, 30], [60, 70, 80]])
    free = model.generate(ids, max_new_tokens=20, eos_token_id=-1)
    end = int(free[0, 3 + 9])
    first = free[0, 3:].tolist().index(end)
    output = model.generate(
        ids, max_new_tokens=20, eos_token_id=[[end], [-1]], return_dict_in_generate=True
    )
    assert output.finish_reason == ["stop", "length"]
    assert torch.equal(output.sequences[0, : 3 + first + 1], free[0, : 3 + first + 1])
    assert (output.sequences[0, 3 + first + 1 :] == 0).all()
    assert torch.equal(output.sequences[1], free[1])
    assert output.num_forwards[0] < output.num_forwards[1]
    assert output.tokens_per_forward[0] == (first + 1) / int(output.num_forwards[0])


def test_end_token_behind_a_mask_does_not_end_the_row(model: Any, prompt: Tensor) -> None:
    """An early reveal at the far end waits for everything before it."""
    free = model.generate(
        prompt, max_new_tokens=8, unmasking_strategy="static", eos_token_id=-1, seed=0
    )
    for position in range(8):
        end = int(free[0, 5 + position])
        first = free[0, 5:].tolist().index(end)
        stopped = model.generate(
            prompt, max_new_tokens=8, unmasking_strategy="static", eos_token_id=end
        )
        assert stopped[0].tolist() == free[0, : 5 + first + 1].tolist()


def test_row_stops_as_soon_as_its_end_is_settled(model: Any, prompt: Tensor) -> None:
    """Masks behind the end token are never revealed."""
    options = {"max_new_tokens": 8, "unmasking_strategy": "sequential"}
    free = model.generate(prompt, eos_token_id=-1, **options)[0, 5:].tolist()
    end = free[4]
    output = model.generate(prompt, eos_token_id=end, return_dict_in_generate=True, **options)
    assert output.num_forwards.tolist() == [free.index(end) + 1]
    assert output.tokens_per_forward.tolist() == [1.0]


def test_num_forwards_counts_each_forward_once(model: Any, prompt: Tensor) -> None:
    options = {"max_new_tokens": 20, "max_denoising_steps": 2, "unmasking_strategy": "static"}
    options |= {"eos_token_id": -1, "return_dict_in_generate": True}
    fused = model.generate(prompt, **options)
    assert fused.num_forwards.tolist() == [6]  # three blocks of two steps
    assert fused.tokens_per_forward.tolist() == [20 / 6]
    assert model.generate(prompt, fuse_commit=False, **options).num_forwards.tolist() == [8]
    chunked = model.generate(prompt, prefill_chunk_length=2, **options)
    assert chunked.num_forwards.tolist() == [6]  # a pure prefill is free


def test_canvas_is_filled_within_each_positions_range(model: Any) -> None:
    prompt = torch.tensor([[10, 20, 30], [0, 40, 50]])
    canvas = torch.full((2, 12), 1)
    modality = torch.tensor([[0, 0] + [1] * 6 + [2] * 4, [1] * 6 + [0] * 4 + [-1] * 2])
    pinned = torch.zeros(2, 12, dtype=torch.bool)
    canvas[0, 0], pinned[0, 0] = 99, True
    canvas[1, 2], pinned[1, 2] = NUM_TEXT + 7, True
    output = model.generate(
        prompt,
        attention_mask=torch.tensor([[1, 1, 1], [0, 1, 1]]),
        canvas=canvas,
        pinned_mask=pinned,
        canvas_modality_ids=modality,
        do_sample=True,
        temperature=3.0,
        return_dict_in_generate=True,
    )
    assert torch.equal(output.sequences, torch.cat([prompt, output.canvas], dim=1))
    assert torch.equal(output.canvas[pinned], canvas[pinned])
    assert output.finish_reason == ["canvas", "canvas"]
    assert output.num_forwards.tolist() == [11, 9]
    assert output.tokens_per_forward.tolist() == [1.0, 1.0]
    kinds = torch.from_numpy(LAYOUT.modality_ids(output.canvas.numpy()))
    assert torch.equal(kinds[modality >= 0], modality[modality >= 0])
    assert (output.canvas[modality < 0] == 0).all()
    for reserved in (0, 1, 2):
        assert not (output.canvas[modality == 0] == reserved).any()


def test_head_is_read_only_where_and_what_can_change(
    model: Any, prompt: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    read_head = model.read_head

    def recorded(hidden: Tensor, id_range: Any = None) -> Tensor:
        logits = read_head(hidden, id_range)
        shapes.append(tuple(logits.shape))
        return logits

    monkeypatch.setattr(model, "read_head", recorded)
    model.generate(
        prompt,
        canvas_modality_ids=torch.full((1, 4), 2),
        max_denoising_steps=2,
        unmasking_strategy="static",
    )
    assert shapes == [(4, NUM_ACTION), (2, NUM_ACTION)]


def test_canvas_with_nothing_to_fill_comes_back_without_a_forward(
    model: Any, prompt: Tensor
) -> None:
    canvas = torch.tensor([[10, 11, NUM_TEXT + 1]])
    output = model.generate(
        prompt,
        canvas=canvas,
        pinned_mask=torch.ones(1, 3, dtype=torch.bool),
        return_dict_in_generate=True,
    )
    assert torch.equal(output.canvas, canvas)
    assert output.num_forwards.tolist() == [0]


def test_mask_id_in_the_prompt_and_pinned_in_a_canvas_is_an_ordinary_token(model: Any) -> None:
    prompt = torch.tensor([[10, 1, 30, 1]])
    output = model.generate(prompt, max_new_tokens=9, eos_token_id=-1)
    assert torch.equal(output[:, :4], prompt)
    assert not (output[:, 4:] == 1).any()
    canvas = torch.tensor([[1, 1, 12]])
    pinned = torch.tensor([[True, False, True]])
    filled = model.generate(prompt, canvas=canvas, pinned_mask=pinned)[0, 4:].tolist()
    assert filled[0] == 1
    assert filled[1] != 1
    assert filled[2] == 12


@pytest.mark.parametrize("pattern", ["causal_context", "block_causal", "full"])
def test_step_budget_smaller_than_the_block_still_ends_without_a_mask(
    pattern: str, prompt: Tensor
) -> None:
    for strategy in ("static", "threshold", "cosine", "sequential", "random"):
        output = tiny_model(attention_pattern=pattern).generate(
            prompt,
            max_new_tokens=13,
            max_denoising_steps=1,
            unmasking_strategy=strategy,
            eos_token_id=-1,
            return_dict_in_generate=True,
        )
        assert not (output.sequences == 1).any()
        # Under block_causal the prompt's five tokens open the first of three blocks.
        assert output.num_forwards.tolist() == [3 if pattern == "block_causal" else 2]


def test_empty_prompt_starts_from_bos(model: Any) -> None:
    nothing = torch.zeros(1, 0, dtype=torch.int64)
    bos = torch.tensor([[2]])
    expected = model.generate(bos, max_new_tokens=6)[0, 1:].tolist()
    assert model.generate(nothing, max_new_tokens=6)[0].tolist() == expected
    assert model.generate(max_new_tokens=6)[0].tolist() == [2, *expected]
    masked = model.generate(
        torch.tensor([[0, 0]]), attention_mask=torch.tensor([[0, 0]]), max_new_tokens=6
    )
    assert masked[0].tolist() == [0, 0, *expected]
    with pytest.raises(ValueError, match="no bos_token_id"):
        tiny_model(bos_token_id=None).generate(nothing)


def test_guidance_of_scale_one_and_of_equal_prompts_changes_nothing(
    model: Any, prompt: Tensor
) -> None:
    plain = model.generate(prompt, max_new_tokens=20, eos_token_id=-1)
    same = model.generate(
        prompt, negative_input_ids=prompt, guidance_scale=3.0, max_new_tokens=20, eos_token_id=-1
    )
    assert torch.equal(plain, same)


@pytest.mark.parametrize("mode", ["diffusion", "ar"])
def test_guidance_mixes_the_logits_of_both_prompts(mode: str, prompt: Tensor) -> None:
    model = tiny_model().double()
    negative = torch.tensor([[33, 44]])
    options = {"max_new_tokens": 20, "eos_token_id": -1, "return_dict_in_generate": True}
    options |= {"decoding_mode": mode, "unmasking_strategy": "sequential", "block_length": 1}
    output = model.generate(prompt, negative_input_ids=negative, guidance_scale=2.0, **options)
    assert output.num_forwards.tolist() == [40]  # two sequences in each step
    assert len(output.past_key_values.token_ids) == 1
    if mode == "diffusion":
        return
    known, other = prompt[0].tolist(), negative[0].tolist()
    for _ in range(20):
        both = [model(torch.tensor([ids])).logits[0, -1] for ids in (known, other)]
        mixed = both[1] + 2.0 * (both[0] - both[1])
        mixed[~LAYOUT.allowed_ids("text", LAYOUT.num_ids)] = -torch.inf
        known, other = [*known, int(mixed.argmax())], [*other, int(mixed.argmax())]
    assert output.sequences[0].tolist() == known


def test_guidance_batched_equals_alone(prompt: Tensor) -> None:
    model = tiny_model().double()
    ids = torch.cat([prompt, prompt + 7])
    negative = torch.tensor([[33, 44, 55]])
    options = {"guidance_scale": 2.5, "do_sample": True, "eos_token_id": -1}
    options |= {"negative_input_ids": negative, "return_dict_in_generate": True}
    batch = model.generate(ids, max_new_tokens=[5, 19], seed=3, **options)
    for row, length in enumerate([5, 19]):
        alone = model.generate(
            ids[row : row + 1], max_new_tokens=length, seed=batch.row_seeds[row], **options
        )
        assert alone.sequences[0].tolist() == batch.sequences[row, : 5 + length].tolist()


def test_logits_processors_see_flat_rows(model: Any, prompt: Tensor) -> None:
    plain = model.generate(prompt, max_new_tokens=12, eos_token_id=-1)
    banned = sorted(set(plain[0, 5:].tolist()))
    processors = [
        SuppressTokensLogitsProcessor(banned),
        TopPLogitsWarper(0.9),
        RepetitionPenaltyLogitsProcessor(1.3),
    ]
    other = model.generate(prompt, max_new_tokens=12, eos_token_id=-1, logits_processor=processors)
    assert not set(other[0, 5:].tolist()) & set(banned)
    unchanged = model.generate(
        prompt, max_new_tokens=12, eos_token_id=-1, logits_processor=[TopPLogitsWarper(0.99)]
    )
    assert torch.equal(unchanged, plain)
    with pytest.raises(ValueError, match="without any id"):
        model.generate(
            prompt,
            logits_processor=[SuppressTokensLogitsProcessor(list(range(NUM_TEXT)))],
        )


def test_repetition_penalty_sees_prompt_and_revealed_tokens(model: Any, prompt: Tensor) -> None:
    seen = []

    def processor(ids: Tensor, scores: Tensor) -> Tensor:
        assert ids.shape[0] == scores.shape[0]
        seen.append(ids[0].tolist())
        return scores

    output = model.generate(
        prompt,
        max_new_tokens=4,
        unmasking_strategy="sequential",
        eos_token_id=-1,
        logits_processor=[processor],
    )
    assert seen == [output[0, : 5 + done].tolist() for done in range(4)]


class StopAfter(StoppingCriteria):
    """Ends a row that has a given number of tokens."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.tensor([input_ids.shape[1] >= self.length])


@pytest.mark.parametrize("pattern", ["causal_context", "block_causal", "full"])
def test_stopping_criteria_cut_inside_a_block(pattern: str, prompt: Tensor) -> None:
    model = tiny_model(attention_pattern=pattern)
    free = model.generate(prompt, max_new_tokens=30, eos_token_id=-1)
    output = model.generate(
        prompt,
        max_new_tokens=30,
        eos_token_id=-1,
        stopping_criteria=[StopAfter(16)],
        return_dict_in_generate=True,
    )
    assert output.sequences[0].tolist() == free[0, :16].tolist()
    assert output.finish_reason == ["stop"]


def test_stop_strings_end_a_row(model: Any, tokenizer: Any) -> None:
    prompt = tokenizer("hello", return_tensors="pt").input_ids
    allowed = [tokenizer.convert_tokens_to_ids(letter) for letter in "abc"]
    only = SuppressTokensLogitsProcessor([i for i in range(NUM_TEXT) if i not in allowed])
    options = {"max_new_tokens": 30, "do_sample": True, "seed": 0, "logits_processor": [only]}
    free = tokenizer.decode(model.generate(prompt, **options)[0, 5:])
    stop = free[11:13]
    text = tokenizer.decode(
        model.generate(prompt, stop_strings=[stop], tokenizer=tokenizer, **options)[0, 5:]
    )
    assert text == free[: free.index(stop) + 2]
    with pytest.raises(ValueError, match="tokenizer="):
        model.generate(prompt, stop_strings=[stop])


def test_same_seed_repeats_and_another_does_not(model: Any, prompt: Tensor) -> None:
    options = {"max_new_tokens": 16, "do_sample": True, "temperature": 2.0, "eos_token_id": -1}
    one = model.generate(prompt, seed=1, **options)
    assert torch.equal(one, model.generate(prompt, seed=1, **options))
    assert not torch.equal(one, model.generate(prompt, seed=2, **options))
    fresh = model.generate(prompt, return_dict_in_generate=True, **options)
    assert not torch.equal(fresh.sequences, model.generate(prompt, **options))
    again = model.generate(prompt, seed=fresh.row_seeds, **options)
    assert torch.equal(fresh.sequences, again)


def test_global_random_state_is_neither_read_nor_changed(model: Any, prompt: Tensor) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model.generate(prompt, do_sample=True, unmasking_strategy="random")
    assert torch.equal(torch.get_rng_state(), before)


def test_logprobs_are_those_of_the_revealed_distribution(prompt: Tensor) -> None:
    model = tiny_model().double()
    output = model.generate(
        prompt, max_new_tokens=1, return_logprobs=True, return_dict_in_generate=True
    )
    canvas = torch.cat([prompt, torch.tensor([[1]])], dim=1)
    logits = model(canvas).logits[0, -1]
    logits[~LAYOUT.allowed_ids("text", LAYOUT.num_ids)] = -torch.inf
    expected = logits.log_softmax(-1)
    token = int(output.sequences[0, -1])
    assert token == int(expected.argmax())
    assert output.logprobs[0, 0].item() == pytest.approx(expected[token].item(), abs=1e-12)


# ---- options ----


def test_checkpoint_keeps_its_options_and_their_class(
    model: Any, prompt: Tensor, tmp_path: Path
) -> None:
    saved = tiny_model()
    saved.generation_config = UniDiffGenerationConfig(
        max_new_tokens=7, block_length=3, unmasking_strategy="cosine", eos_token_id=-1
    )
    expected = saved.generate(prompt)
    saved.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is UniDiffForBlockDiffusion
    assert type(loaded.generation_config) is UniDiffGenerationConfig
    assert loaded.generation_config.block_length == 3
    assert loaded.generation_config.top_k is None
    assert torch.equal(loaded.generate(prompt), expected)
    reread = UniDiffGenerationConfig.from_pretrained(tmp_path)
    assert reread.given() == saved.generation_config.given()


def test_keyword_wins_over_given_config_over_saved_config(prompt: Tensor) -> None:
    model = tiny_model()
    model.generation_config = UniDiffGenerationConfig(max_new_tokens=4, eos_token_id=-1)
    assert model.generate(prompt).shape[1] == 5 + 4
    given = UniDiffGenerationConfig(max_new_tokens=6)
    assert model.generate(prompt, generation_config=given).shape[1] == 5 + 6
    foreign = GenerationConfig(max_new_tokens=7)
    assert model.generate(prompt, generation_config=foreign).shape[1] == 5 + 7
    assert model.generate(prompt, generation_config=given, max_new_tokens=2).shape[1] == 5 + 2


def test_codebook_is_not_cut_to_fifty_ids(model: Any, prompt: Tensor) -> None:
    options = {"do_sample": True, "temperature": 1e6, "eos_token_id": -1}
    tokens = model.generate(prompt, max_new_tokens=2000, max_denoising_steps=1, **options)[0, 5:]
    assert len(set(tokens.tolist())) > 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denoising_stepz": 4}, "unknown decoding option 'denoising_stepz'.*max_denoising_steps"),
        ({"steps": 4}, "'steps' is called 'max_denoising_steps'"),
        ({"remasking": "low_confidence"}, "'remasking' is called 'unmasking_strategy'"),
        ({"cfg_scale": 2.0}, "'cfg_scale' is called 'guidance_scale'"),
        ({"gen_length": 8}, "'gen_length' is called 'max_new_tokens'"),
        ({"num_beams": 4}, "num_beams=4 is not supported"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2 is not supported"),
        ({"confidence_threshold": 0.0}, r"confidence_threshold must be in \(0, 1\]"),
        ({"confidence_threshold": 1.5}, r"confidence_threshold must be in \(0, 1\]"),
        ({"confidence_threshold": float("nan")}, r"confidence_threshold must be in \(0, 1\]"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"temperature": -1.0}, "temperature must be in"),
        ({"max_new_tokens": -1}, "max_new_tokens must be >= 0"),
        ({"max_denoising_steps": 0}, "max_denoising_steps must be >= 1"),
        ({"block_length": 0}, "block_length must be >= 1"),
        ({"unmasking_strategy": "greedy"}, "unmasking_strategy must be one of"),
        ({"confidence_metric": "p"}, "confidence_metric must be one of"),
        ({"cache_reuse": "dual"}, "for which 'exact' is faster"),
        ({"decoding_mode": "speculative"}, "decoding_mode must be one of"),
        ({"guidance_scale": 2.0}, "needs negative_input_ids"),
        ({"seed": [1, 2]}, "seed has 2 values for 1 rows"),
        ({"max_new_tokens": [3, 4, 5]}, "max_new_tokens has 3 values for 1 rows"),
    ],
)
def test_impossible_options_are_named(
    options: dict, message: str, model: Any, prompt: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(prompt, **options)


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 2.5}, {"do_sample": "yes"}, {"temperature": "hot"}]
)
def test_options_of_the_wrong_type_are_named(options: dict, model: Any, prompt: Tensor) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        model.generate(prompt, **options)


def test_saved_config_rejects_unknown_and_impossible_options() -> None:
    with pytest.raises(ValueError, match="unknown decoding option"):
        UniDiffGenerationConfig(blok_length=3)
    with pytest.raises(ValueError, match="confidence_threshold"):
        UniDiffGenerationConfig(confidence_threshold=2.0)
    assert UniDiffGenerationConfig._get_default_generation_params() == OPTIONS


# ---- bad tensors ----


def canvas_arguments(**changes: Any) -> dict[str, Any]:
    """A legal canvas with some arguments replaced."""
    return {
        "canvas": torch.tensor([[10, 1, 12]]),
        "pinned_mask": torch.tensor([[True, False, True]]),
        "canvas_modality_ids": torch.zeros(1, 3, dtype=torch.int64),
        **changes,
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_ids": torch.tensor([[10, 999]])}, ValueError, r"must lie in \[0, 296\)"),
        ({"input_ids": torch.tensor([[10, -1]])}, ValueError, "must lie in"),
        ({"input_ids": torch.tensor([[1.0, 2.0]])}, TypeError, "integer tensor"),
        ({"input_ids": torch.tensor([10, 11])}, ValueError, "2 dimensions"),
        ({"input_ids": [[10, 11]]}, TypeError, "must be a tensor"),
        ({"attention_mask": torch.ones(1, 9)}, ValueError, "attention_mask must have shape"),
        ({"position_ids": torch.zeros(1, 9)}, ValueError, "position_ids must have shape"),
        (canvas_arguments(pinned_mask=None), ValueError, "canvas needs pinned_mask"),
        (canvas_arguments(canvas=None), ValueError, "pinned_mask needs the canvas"),
        (
            canvas_arguments(pinned_mask=torch.ones(1, 4, dtype=torch.bool)),
            ValueError,
            "pinned_mask must have shape",
        ),
        (canvas_arguments(pinned_mask=torch.tensor([[1, 0, 1]])), TypeError, "must be bool"),
        (canvas_arguments(canvas=torch.tensor([[10, 1, 400]])), ValueError, "must lie in"),
        (canvas_arguments(canvas=torch.tensor([[10.0, 1.0, 4.0]])), TypeError, "integer tensor"),
        (
            canvas_arguments(canvas_modality_ids=torch.tensor([[0, 7, 0]])),
            ValueError,
            "canvas_modality_ids must lie in",
        ),
        (
            canvas_arguments(canvas_modality_ids=torch.tensor([[0, -1, 0]])),
            ValueError,
            "must stand behind",
        ),
        (
            canvas_arguments(canvas_modality_ids=torch.tensor([[0, 3, 0]])),
            ValueError,
            "has no 'state' tokens",
        ),
        (
            canvas_arguments(canvas_modality_ids=torch.tensor([[0, 0, 1]])),
            ValueError,
            "given as id 12, which is no image token",
        ),
        (canvas_arguments(max_new_tokens=5), ValueError, "does not apply to a canvas"),
        (canvas_arguments(decoding_mode="auto"), ValueError, "a canvas was given"),
        (
            canvas_arguments(decoding_mode="ar", canvas_allowed_ids=[[10], [11], [12]]),
            ValueError,
            "fills a canvas under no canvas_allowed_ids",
        ),
        ({"inputs": torch.tensor([[1]])}, ValueError, "pass the prompt once"),
        ({"attention_mask": [[1] * 5]}, TypeError, "attention_mask must be a tensor, got list"),
        ({"position_ids": [[0] * 5]}, TypeError, "position_ids must be a tensor, got list"),
        ({"position_ids": torch.zeros(1, 5)}, TypeError, "position_ids must be integers"),
        (canvas_arguments(canvas=[[10, 1, 12]]), TypeError, "canvas must be a tensor"),
        (canvas_arguments(pinned_mask=[[True, False, True]]), TypeError, "pinned_mask must be a t"),
        (canvas_arguments(canvas_modality_ids=[[0] * 3]), TypeError, "modality_ids must be a t"),
        ({"generation_config": {}}, TypeError, "generation_config must be .* got dict"),
        ({"bos_token_id": 296}, ValueError, r"bos_token_id must lie in \[0, 296\)"),
        ({"pad_token_id": 999}, ValueError, r"pad_token_id must lie in \[0, 296\)"),
        ({"eos_token_id": [[3, 296]]}, ValueError, r"eos_token_id must lie in \[0, 296\)"),
    ],
)
def test_bad_tensors_are_named_before_the_first_forward(
    arguments: dict,
    error: type,
    message: str,
    model: Any,
    prompt: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_forward(**kwargs: Any) -> None:
        raise AssertionError("a forward ran")

    monkeypatch.setattr(model.model, "forward", no_forward)
    with pytest.raises(error, match=message):
        model.generate(**{"input_ids": prompt, **arguments})


def test_scalar_tensors_and_numpy_numbers_are_options(model: Any, prompt: Tensor) -> None:
    plain = {"max_new_tokens": 6, "temperature": 0.7, "top_p": 0.9, "top_k": 9, "seed": 3}
    expected = model.generate(prompt, do_sample=True, **plain)
    given = {
        "max_new_tokens": np.int32(6),
        "temperature": torch.tensor(0.7, dtype=torch.float64),
        "top_p": np.float64(0.9),
        "top_k": torch.tensor(9),
        "seed": np.int64(3),
    }
    assert torch.equal(model.generate(prompt, do_sample=True, **given), expected)


def test_a_request_beyond_the_trained_positions_warns_once(
    prompt: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    short = tiny_model(max_position_embeddings=13)
    short.generate(prompt, max_new_tokens=8)
    assert not caplog.records
    for _ in range(2):
        short.generate(prompt, max_new_tokens=9)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "max_position_embeddings=13" in caplog.text
    image = torch.ones(1, 6, dtype=torch.int64)
    caplog.clear()
    narrow = tiny_model(max_position_embeddings=7)  # five of text; the grid reaches position 5 + 2
    narrow.generate(prompt, canvas_modality_ids=image)
    assert "max_position_embeddings=7" in caplog.text


def test_options_that_contradict_the_checkpoint_are_named(prompt: Tensor) -> None:
    full, grid = tiny_model(attention_pattern="full"), tiny_model(attention_pattern="block_causal")
    with pytest.raises(ValueError, match="cache_reuse='exact' is impossible"):
        full.generate(prompt, cache_reuse="exact")
    with pytest.raises(ValueError, match="block_length must equal the trained grid 8"):
        grid.generate(prompt, block_length=4)
    with pytest.raises(ValueError, match="does not fit the trained grid"):
        grid.generate(prompt, canvas_modality_ids=torch.zeros(1, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="decoding_mode='ar'"):
        full.generate(prompt, decoding_mode="ar")
    with pytest.raises(ValueError, match="past_key_values need"):
        full.generate(prompt, past_key_values=object())


def test_streamer_with_several_rows_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="a streamer shows one row"):
        model.generate(torch.tensor([[10], [11]]), streamer=TextStreamer(tokenizer))


# ---- transformers' and peft's own tools ----


@pytest.mark.parametrize("mode", ["diffusion", "ar"])
def test_text_streamer_prints_the_text(
    mode: str, model: Any, tokenizer: Any, capsys: pytest.CaptureFixture
) -> None:
    inputs = tokenizer("hello", return_tensors="pt")
    output = model.generate(
        **inputs, streamer=TextStreamer(tokenizer), max_new_tokens=12, decoding_mode=mode
    )
    assert capsys.readouterr().out.strip() == tokenizer.decode(output[0]).strip()


def test_text_diffusion_streamer_shows_drafts_and_the_text(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture
) -> None:
    inputs = tokenizer("hello", return_tensors="pt")
    streamer = TextDiffusionStreamer(tokenizer, skip_prompt=True)
    output = model.generate(**inputs, streamer=streamer, max_new_tokens=12, eos_token_id=-1)
    printed = capsys.readouterr().out
    assert printed.count("\033[33m") == 12  # one draft for each of the twelve steps
    shown = "".join(part.split("\0337")[0] for part in printed.split("\0338\033[J"))
    assert shown.strip() == tokenizer.decode(output[0, 5:]).strip()


@pytest.mark.parametrize("sample", [True, False])
def test_text_generation_pipeline(sample: bool, model: Any, tokenizer: Any) -> None:
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    options = {"max_new_tokens": 9, "max_denoising_steps": 3, "do_sample": sample, "seed": 1}
    (answer,) = generator("hello", return_full_text=False, **options)
    ids = tokenizer("hello", return_tensors="pt").input_ids
    temperature = {"temperature": 0.7} if sample else {}  # the pipeline's own default
    expected = model.generate(ids, **options, **temperature)[0, 5:]
    text = tokenizer.decode(expected, skip_special_tokens=True)
    assert answer["generated_text"] == text
    batch = generator(["hello", "a longer prompt"], batch_size=2, max_new_tokens=3)
    assert len(batch) == 2


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", None])
@pytest.mark.parametrize("target", [["q_proj", "v_proj"], ["lm_head"]])
def test_peft_adapter_generates_and_can_be_taken_away(
    task_type: str | None, target: list[str], prompt: Tensor
) -> None:
    base = tiny_model(tie_word_embeddings=False)
    expected = base.generate(prompt, max_new_tokens=9, eos_token_id=-1)
    config = LoraConfig(task_type=task_type, target_modules=target, init_lora_weights=False)
    torch.manual_seed(1)
    adapted = get_peft_model(base, config)
    output = adapted.generate(input_ids=prompt, max_new_tokens=9, eos_token_id=-1)
    assert output.shape == expected.shape
    assert not torch.equal(output, expected)
    with adapted.disable_adapter():
        plain = adapted.generate(input_ids=prompt, max_new_tokens=9, eos_token_id=-1)
    assert torch.equal(plain, expected)
    merged = adapted.merge_and_unload()
    assert torch.equal(merged.generate(prompt, max_new_tokens=9, eos_token_id=-1), output)


def test_damaged_weights_are_an_error_and_not_an_answer(prompt: Tensor) -> None:
    damaged = tiny_model()
    with torch.no_grad():
        damaged.model.norm.weight.fill_(torch.nan)
    for options in ({}, {"do_sample": True}, {"decoding_mode": "ar"}):
        with pytest.raises(ValueError, match="the model returned NaN"):
            damaged.generate(prompt, **options)


def test_a_huge_limit_costs_nothing_until_it_is_reached(
    model: UniDiffForBlockDiffusion, prompt: Tensor
) -> None:
    stop = [lambda ids, scores: ids.shape[1] > 12]
    output = model.generate(prompt, max_new_tokens=10**9, stopping_criteria=stop)
    assert output.shape[1] < 40
    with pytest.raises(ValueError, match="max_new_tokens must be <= 2147483647"):
        model.generate(prompt, max_new_tokens=2**70)


def test_a_streamer_that_cannot_take_tokens_is_refused(
    model: UniDiffForBlockDiffusion, prompt: Tensor
) -> None:
    with pytest.raises(TypeError, match="a streamer needs put"):
        model.generate(prompt, streamer=5)


def test_generating_leaves_the_training_mode_alone_and_builds_no_graph(prompt: Tensor) -> None:
    model = tiny_model().train()
    output = model.generate(prompt, return_dict_in_generate=True)
    assert model.training
    assert not any(p.grad is not None for p in model.parameters())
    for layer in range(2):
        stored = output.past_key_values.read(layer)
        assert stored is None or not stored[0].requires_grad
