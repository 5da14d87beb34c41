"""The model as transformers sees it: forward, heads, saving and loading, Qwen3's weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from unidiff.data.blocks import IGNORED, TrainingRow
from unidiff.data.collator import BlockCollator
from unidiff.model import UniDiffConfig, UniDiffForBlockDiffusion, UniDiffModel
from unidiff.model.streams import training_streams
from unidiff.tokens.layout import contiguous_layout

VOCAB = 24
PATTERNS = ("causal_context", "block_causal", "full")
LAYOUT = contiguous_layout(
    {"text": 12, "image": 8},
    reserved_token_ids=(2,),
    mask_token_id=1,
    pad_token_id=0,
    end_token_ids=(3,),
)


def random_ids(rows: int, length: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(4, VOCAB, (rows, length)))


def training_inputs(make_sample: Callable) -> dict[str, Tensor]:
    batch = BlockCollator()([make_sample(list(range(2, 10)), [-1, -1, 0, 0, 0, 1, 1, 1])])
    streams = training_streams(batch, None)
    return streams.inputs(streams.can_mask_BK, 1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sdpa_equals_eager(pattern: str, make_model: Callable) -> None:
    ids = random_ids(2, 9)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])
    out = {}
    for name in ("sdpa", "eager"):
        model = make_model(attention_pattern=pattern, attn_implementation=name)
        assert model.config._attn_implementation == name
        out[name] = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(out["sdpa"], out["eager"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_left_padded_equals_unpadded(pattern: str, make_model: Callable) -> None:
    model = make_model(attention_pattern=pattern)
    ids = random_ids(1, 9)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    padded = model(ids, attention_mask=mask).logits[:, 3:]
    torch.testing.assert_close(padded, model(ids[:, 3:]).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("pattern", "sees"), [("causal_context", 3), ("block_causal", 4)])
def test_a_clean_row_sees_what_its_pattern_allows(
    pattern: str, sees: int, make_model: Callable
) -> None:
    model = make_model(attention_pattern=pattern)  # blocks of four
    ids = random_ids(1, 8)
    whole = model(ids).logits
    for length in range(1, 9):
        changed = torch.cat([ids[:, :length], (ids[:, length:] + 3) % VOCAB], dim=1)
        same = torch.isclose(whole, model(changed).logits, atol=1e-5).all(-1)[0].tolist()
        expected = length if sees == 3 else length // 4 * 4
        assert same == [True] * expected + [False] * (8 - expected)


def test_gradient_checkpointing_changes_nothing(
    make_model: Callable, make_sample: Callable
) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.model.layers)
        model(**training_inputs(make_sample)).token_losses.sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_logits_are_read_where_and_in_which_range_asked(make_model: Callable) -> None:
    model = make_model()
    ids = random_ids(2, 5)
    whole = model(ids).logits
    at = torch.tensor([[True, False, False, True, False], [False, False, True, False, False]])
    torch.testing.assert_close(model(ids, logits_at=at).logits, whole[at])
    part = model(ids, logits_at=at, id_range=(5, 9)).logits
    torch.testing.assert_close(part, whole[at][:, 5:9])


def test_loss_ranges_over_the_ids_of_the_labels_modality(make_model: Callable) -> None:
    model = make_model(token_layout=LAYOUT.to_dict())
    ids = torch.tensor([[4, 5, 13, 6]])
    labels = torch.tensor([[IGNORED, 3, 19, 11]])
    logits = model(ids).logits[0]
    losses = model(ids, labels=labels).token_losses[0]
    text = logits[:, :12].clone()
    text[:, [1, 2]] = -torch.inf  # the mask and a reserved special id are never predicted
    image = logits[:, 12:20]
    expected = [
        0.0,
        -float(text[1].log_softmax(-1)[3]),
        -float(image[2].log_softmax(-1)[7]),
        -float(text[3].log_softmax(-1)[11]),
    ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("label", [1, 2, 20, 23, 24, 1000, -1])
def test_labels_outside_the_layout_are_refused(label: int, make_model: Callable) -> None:
    model = make_model(token_layout=LAYOUT.to_dict())  # 20 ids in a vocabulary of 24
    with pytest.raises(ValueError, match="no canvas position may take"):
        model(torch.tensor([[4]]), labels=torch.tensor([[label]]))


def test_an_adapted_head_is_used_by_logits_and_losses(make_model: Callable) -> None:
    model = make_model(tie_word_embeddings=False)
    ids, labels = random_ids(1, 4), random_ids(1, 4)
    before = model(ids, labels=labels).token_losses

    class Adapted(torch.nn.Module):
        def __init__(self, inner: torch.nn.Linear) -> None:
            super().__init__()
            self.weight, self.bias = inner.weight, None

        def forward(self, hidden: Tensor) -> Tensor:
            bump = torch.zeros(VOCAB)
            bump[int(labels[0, 0])] = 5.0
            return torch.nn.functional.linear(hidden, self.weight) + bump

    model.lm_head = Adapted(model.lm_head)
    assert model(ids, labels=labels).token_losses[0, 0] < before[0, 0]
    assert model(ids, id_range=(3, 9)).logits.shape == (1, 4, 6)


def test_embeddings_may_come_instead_of_ids(make_model: Callable) -> None:
    model = make_model()
    ids = random_ids(2, 5)
    embedded = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embedded).logits, model(ids).logits)
    for wrong in ({}, {"input_ids": ids, "inputs_embeds": embedded}):
        with pytest.raises(ValueError, match="exactly one of"):
            model(**wrong)


def test_a_cache_asks_for_its_own_mask(make_model: Callable) -> None:
    class Filled:
        num_slots = 3

    with pytest.raises(ValueError, match="placement"):
        make_model()(random_ids(1, 2), past_key_values=Filled())


def test_positions_of_three_sections_matter(make_model: Callable) -> None:
    model = make_model()
    ids = random_ids(1, 6)
    line = torch.arange(6).expand(3, 1, 6)
    torch.testing.assert_close(model(ids, position_ids=line).logits, model(ids).logits)
    torch.testing.assert_close(model(ids, position_ids=line[0]).logits, model(ids).logits)
    grid = line.clone()
    grid[1] //= 2
    assert not torch.allclose(model(ids, position_ids=grid).logits, model(ids).logits)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_bfloat16_forward_is_close(implementation: str, make_model: Callable) -> None:
    model = make_model(attn_implementation=implementation)
    ids = random_ids(2, 12)
    exact = model(ids).logits.softmax(-1)
    rounded = model.bfloat16()(ids).logits
    assert rounded.dtype == torch.bfloat16
    difference = (rounded.float().softmax(-1) - exact).abs()
    assert difference.max() < 0.05
    assert difference.sum(-1).mean() < 0.05


@pytest.mark.parametrize("tied", [True, False])
def test_saved_model_loads_through_the_auto_classes(
    tied: bool, make_model: Callable, tmp_path: Path
) -> None:
    model = make_model(tie_word_embeddings=tied, attention_pattern="block_causal")
    model.save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not tied
    ids = random_ids(2, 7)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is UniDiffForBlockDiffusion
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is UniDiffModel
    assert torch.equal(base(ids).last_hidden_state, model(ids).hidden_states)
    rounded = UniDiffForBlockDiffusion.from_pretrained(tmp_path, dtype=torch.bfloat16)
    torch.testing.assert_close(rounded(ids).logits, model.bfloat16()(ids).logits)


def test_resized_embeddings_keep_old_rows_and_reload(make_model: Callable, tmp_path: Path) -> None:
    model = make_model(token_layout=LAYOUT.to_dict())
    ids = random_ids(1, 5)
    before = model(ids).logits
    model.resize_token_embeddings(VOCAB + 8, mean_resizing=False)
    assert model.config.vocab_size == VOCAB + 8
    torch.testing.assert_close(model(ids).logits[..., :VOCAB], before)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    loaded = UniDiffForBlockDiffusion.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def qwen3(tied: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.25,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )
    return Qwen3ForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_qwen3_weights_load_unchanged_and_give_its_logits(tied: bool) -> None:
    theirs = qwen3(tied)
    fields = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "head_dim",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "tie_word_embeddings",
    )
    config = UniDiffConfig(**{name: getattr(theirs.config, name) for name in fields})
    ours = UniDiffForBlockDiffusion(config).eval()
    result = ours.load_state_dict(theirs.state_dict(), strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    ids = random_ids(2, 11)
    mask = torch.tensor([[0] * 4 + [1] * 7, [1] * 11])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = theirs(ids, attention_mask=mask, position_ids=positions).logits
    logits = ours(ids, attention_mask=mask).logits
    at = mask.bool()
    torch.testing.assert_close(logits[at], expected[at], rtol=1e-5, atol=1e-5)


def test_a_missing_weight_file_is_named(make_model: Callable, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        UniDiffForBlockDiffusion.from_pretrained(tmp_path)


def test_a_truncated_weight_file_is_an_error(make_model: Callable, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"(?i)incomplete|truncated|corrupt"):
        UniDiffForBlockDiffusion.from_pretrained(tmp_path)


def test_a_missing_weight_is_reported_by_name(make_model: Callable, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, report = UniDiffForBlockDiffusion.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"model.layers.1.mlp.up_proj.weight"}


def test_the_tiny_model_memorises_sixteen_sequences(make_model: Callable) -> None:
    """The denoising losses fall to zero where the context says which sequence it is."""
    rng = np.random.default_rng(0)
    samples: list[dict[str, Any]] = []
    for key in range(16):
        ids = np.r_[2, 4 + key, rng.integers(4, VOCAB, 8)]
        blocks = np.array([-1, -1, *[0] * 4, *[1] * 4])
        row = TrainingRow(
            input_ids=ids,
            modality_ids=np.zeros(10, dtype=np.int64),
            position_ids=np.broadcast_to(np.arange(10), (3, 10)),
            labels=np.where(blocks >= 0, ids, IGNORED),
            block_ids=blocks,
            context_mask=np.ones(10, dtype=bool),
            token_index=np.arange(10),
        )
        samples.append({"row": row, "key": key, "stream_position": key})
    batch = BlockCollator()(samples)
    model = make_model(hidden_size=64, intermediate_size=128, initializer_range=0.02).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    streams = training_streams(batch, None)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        rate = torch.rand(16, 1, generator=generator)
        masked = torch.rand(streams.can_mask_BK.shape, generator=generator) < rate
        loss = model(**streams.inputs(masked, 1)).token_losses.sum() / 64
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bound = model.eval().nll(batch, num_samples=8)
    per_token = float(bound.nats_B.sum() / bound.num_tokens_B.sum())
    assert per_token < 0.05  # a uniform guess is 3.1 nats
    whole = streams.inputs(streams.can_mask_BK, 1)
    labels = whole.pop("labels")
    guess = model(**whole).logits.argmax(-1)
    assert (guess == labels)[labels != IGNORED].float().mean() > 0.98
