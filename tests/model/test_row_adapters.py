"""A batch whose rows are read by different adapters equals each row decoded under its own."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_decoding import COMMON, PATTERNS, assert_rows_equal_alone, decode, prompts, tiny_model

from unidiff.generation.inputs import GenerationInputs
from unidiff.model.modeling import UniDiffForBlockDiffusion

LENGTHS = [5, 3, 7, 4]
NAMES = ["first", None, "second", "first"]
TRUNK = {"target_modules": ["q_proj", "down_proj"]}
ADAPTED: dict[str, dict[str, Any]] = {
    "trunk": TRUNK,
    "head": {"target_modules": ["v_proj", "lm_head"]},
    "tokens": {**TRUNK, "trainable_token_indices": [7, 9, 20, 33]},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unfused": {"fuse_commit": False, "prefill_chunk_length": 2},
    "recomputed": {"cache_reuse": "none"},
    "guided": {"guidance_scale": 1.5},
    "ar": {"decoding_mode": "ar"},
    "self_speculative": {"decoding_mode": "self_speculative"},
}


def adapted_model(
    pattern: str = "causal_context", kind: str = "trunk", **config: Any
) -> UniDiffForBlockDiffusion:
    """A tiny model with the adapters `first` and `second`; only `first` knows new tokens."""
    model = tiny_model(pattern, **config)
    torch.manual_seed(11)
    model.add_adapter(LoraConfig(r=2, init_lora_weights=False, **ADAPTED[kind]), "first")
    second = TRUNK if kind == "tokens" else ADAPTED[kind]
    model.add_adapter(LoraConfig(r=3, init_lora_weights=False, **second), "second")
    for name, weight in model.named_parameters():
        if "trainable_tokens_delta" in name:
            weight.data.normal_(std=0.3)
    model.set_adapter("first")
    return model.double().eval()


def under(model: UniDiffForBlockDiffusion, name: str | None, *args: Any, **options: Any) -> Any:
    """What one adapter alone answers; None: the base."""
    model.enable_adapters()
    if name is None:
        model.disable_adapters()
    else:
        model.set_adapter(name)
    output = decode(model, *args, **options)
    model.enable_adapters()
    model.set_adapter("first")
    return output


def assert_mixed_equals_apart(model: UniDiffForBlockDiffusion, **options: Any) -> None:
    """Decode rows of unequal lengths and limits together, and each under its adapter alone."""
    ids, mask = prompts(LENGTHS)
    limits = [9, 17, 4, 12]  # rows end, and leave the batch, one after the other
    if options.get("guidance_scale"):
        options["negative_input_ids"] = torch.tensor([[5, 6, 8]])
    settings = {**options, "max_denoising_steps": 3}
    mixed = decode(model, ids, mask, seed=3, adapter_names=NAMES, max_new_tokens=limits, **settings)
    for row, name in enumerate(NAMES):
        one = slice(row, row + 1)
        start = ids.shape[1] - LENGTHS[row]
        alone = under(
            model,
            name,
            ids[one, start:],
            mask[one, start:],
            seed=mixed.row_seeds[one],
            max_new_tokens=limits[row],
            **settings,
        )
        expected = alone.sequences[0, LENGTHS[row] :]
        assert torch.equal(mixed.sequences[row, ids.shape[1] :][: limits[row]], expected), name
        assert mixed.num_forwards[row] == alone.num_forwards[0]


@pytest.mark.parametrize("kind", list(ADAPTED))
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_mixed_rows_equal_rows_under_their_own_adapter(setting: str, kind: str) -> None:
    assert_mixed_equals_apart(adapted_model(kind=kind), **SETTINGS[setting])


@pytest.mark.parametrize("kind", ["trunk", "head"])
@pytest.mark.parametrize("pattern", PATTERNS[1:])
def test_mixed_rows_under_other_attention(pattern: str, kind: str) -> None:
    assert_mixed_equals_apart(adapted_model(pattern, kind))


@pytest.mark.parametrize("kind", ["trunk", "tokens"])
def test_mixed_rows_with_a_tied_head(kind: str) -> None:
    assert_mixed_equals_apart(adapted_model(kind=kind, tie_word_embeddings=True))


def test_rows_of_several_adapters_differ() -> None:
    """Otherwise the tests above show nothing."""
    model = adapted_model()
    ids, mask = prompts([5])
    answers = [under(model, name, ids, mask, seed=1).sequences.tolist() for name in set(NAMES)]
    assert len({str(answer) for answer in answers}) == 3


def test_a_mixed_row_equals_itself_alone_with_its_name() -> None:
    own = {"adapter_names": NAMES[:3]}
    assert_rows_equal_alone(adapted_model(), [5, 3, 7], 4, {"max_new_tokens": 12}, own)


def test_requests_of_other_adapters_join_and_leave() -> None:
    model = adapted_model()
    ids, mask = prompts(LENGTHS)
    session = model.decoding_session(max_rows=2, **{**COMMON, "max_denoising_steps": 2})
    requests = []
    for row in range(len(LENGTHS)):
        one = slice(row, row + 1)
        inputs = GenerationInputs(ids[one], mask[one])
        own = {"adapter_names": [NAMES[row]], "max_new_tokens": 6 + 5 * row, "seed": row}
        requests.append(session.submit(inputs, **own))
        session.step()
    session.run()
    for row, request in enumerate(requests):
        one = slice(row, row + 1)
        options = {"max_new_tokens": 6 + 5 * row, "seed": row, "max_denoising_steps": 2}
        alone = under(model, NAMES[row], ids[one], mask[one], **options)
        assert torch.equal(request.output.sequences, alone.sequences)


def test_rows_without_a_name_are_read_by_the_active_adapter() -> None:
    model = adapted_model()
    ids, mask = prompts(LENGTHS)
    plain = decode(model, ids, mask, seed=2)
    session = model.decoding_session(**COMMON)
    silent = session.submit(GenerationInputs(ids, mask), seed=2)
    session.submit(GenerationInputs(ids, mask), seed=2, adapter_names="second")
    session.run()
    assert torch.equal(silent.output.sequences, plain.sequences)


def test_one_name_holds_for_all_rows() -> None:
    model = adapted_model()
    ids, mask = prompts(LENGTHS)
    named = decode(model, ids, mask, seed=2, adapter_names="second")
    assert torch.equal(named.sequences, under(model, "second", ids, mask, seed=2).sequences)


def test_a_cache_goes_on_under_the_adapters_it_was_made_with() -> None:
    model = adapted_model()
    ids, mask = prompts([5, 5])
    names = ["first", "second"]
    first = decode(model, ids, mask, seed=2, adapter_names=names, max_new_tokens=9)
    longer = torch.cat([first.sequences, torch.full((2, 2), 8)], dim=1)
    whole = torch.ones_like(longer)
    again = {"seed": 5, "max_new_tokens": 9, "adapter_names": names}
    kept = decode(model, longer, whole, past_key_values=first.past_key_values, **again)
    assert torch.equal(kept.sequences, decode(model, longer, whole, **again).sequences)
    first = decode(model, ids, mask, seed=2, adapter_names=names, max_new_tokens=9)
    again["adapter_names"] = names[::-1]
    with pytest.raises(ValueError, match=r"computed with adapter_names=\['first', 'second'\]"):
        decode(model, longer, whole, past_key_values=first.past_key_values, **again)


def test_a_peft_model_hands_its_adapter_names_over() -> None:
    torch.manual_seed(11)
    config = LoraConfig(r=2, init_lora_weights=False, **ADAPTED["head"])
    wrapped = get_peft_model(tiny_model("causal_context"), config, "first")
    wrapped.add_adapter("second", config)
    wrapped.eval().double()
    ids, mask = prompts(LENGTHS)
    names = ["first", "__base__", "second", "first"]
    limits = {"max_new_tokens": [9, 17, 4, 12], "seed": 1, **COMMON}
    mixed = wrapped.generate(input_ids=ids, attention_mask=mask, adapter_names=names, **limits)
    base = wrapped.get_base_model()
    own = base.generate(ids, attention_mask=mask, adapter_names=names, **limits)
    assert torch.equal(mixed, own)
    assert not torch.equal(mixed, base.generate(ids, attention_mask=mask, **limits))


def test_hooks_are_gone_afterwards() -> None:
    model = adapted_model(kind="tokens")
    ids, mask = prompts(LENGTHS)
    decode(model, ids, mask, adapter_names=NAMES)
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in model.modules())


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["first", "third"], {}, r"asks for \['third'\], and the model has \['first', 'second'\]"),
        (["first"], {}, "adapter_names has 1 values for 2 rows"),
        (["first", 3], {}, "adapter_names must be a string"),
    ],
)
def test_names_that_cannot_be_are_refused(names: Any, options: dict, message: str) -> None:
    ids, mask = prompts([5, 3])
    with pytest.raises((ValueError, TypeError), match=message):
        decode(adapted_model(), ids, mask, adapter_names=names, **options)


def test_names_without_adapters_are_refused() -> None:
    ids, mask = prompts([5, 3])
    with pytest.raises(ValueError, match=r"asks for \['a'\], and the model has \[\]"):
        decode(tiny_model("causal_context"), ids, mask, adapter_names=["a", None])


def test_approximate_reuse_does_not_mix() -> None:
    ids, mask = prompts([5, 3])
    options = {"adapter_names": ["first", "second"], "cache_reuse": "dual"}
    with pytest.raises(ValueError, match="cannot be mixed under approximate reuse"):
        decode(adapted_model("full"), ids, mask, **options)


def test_an_adapter_on_the_head_is_not_packed_away() -> None:
    model = tiny_model("causal_context")
    model.add_adapter(LoraConfig(target_modules=["lm_head"], init_lora_weights=False))
    model.float()
    ids, mask = prompts([5])
    with pytest.raises(ValueError, match="needs plain linear layers, found"):
        decode(model, ids, mask, prepack_weights=True)


def test_an_adapter_merged_in_place_is_packed_and_mixes_no_more() -> None:
    model = adapted_model().float()
    ids, mask = prompts([5, 3])
    expected = decode(model, ids, mask, seed=1)
    model.merge_adapter()
    packed = decode(model, ids, mask, seed=1, prepack_weights=True)
    assert torch.equal(packed.sequences, expected.sequences)
    with pytest.raises(ValueError, match="prepack_weights=True decodes from one copy"):
        decode(model, ids, mask, prepack_weights=True, adapter_names="first")
    model.unmerge_adapter()
    assert torch.equal(decode(model, ids, mask, seed=1).sequences, expected.sequences)


@pytest.mark.parametrize("state", ["training", "merged", "disabled", "two"])
def test_states_of_the_model_that_forbid_mixing_are_named(state: str) -> None:
    model = adapted_model()
    if state == "training":
        model.train()
    elif state == "merged":
        model.model.layers[0].self_attn.q_proj.merge()
    elif state == "disabled":
        model.disable_adapters()
    else:
        model.set_adapter(["first", "second"])
    message = {
        "training": r"model\.eval\(\)",
        "merged": "unmerged",
        "disabled": r"enable_adapters\(\)",
        "two": r"one active adapter, there are \['first', 'second'\]",
    }[state]
    ids, mask = prompts([5, 3])
    with pytest.raises(ValueError, match=message):
        decode(model, ids, mask, adapter_names=["first", "second"])
