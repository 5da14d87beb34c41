"""The full-attention recipe: whole windows, a plain pass under the full mask, resume, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import unidiff.training.full_variant as full_variant
from unidiff.bundled import bundled_checkpoint
from unidiff.data.blocks import one_block_row
from unidiff.data.collator import BlockCollator
from unidiff.data.prepared import save_arrays
from unidiff.data.tasks import RowMaker
from unidiff.model import UniDiffForBlockDiffusion
from unidiff.model.streams import training_streams
from unidiff.tokens.sequence import SequenceEncoder, join, run_of
from unidiff.training.assemble import assemble_full
from unidiff.training.full_variant import (
    FullRecipe,
    WholeWindow,
    full_config,
    full_objective,
    full_stream,
    train_full,
)
from unidiff.training.objective import BlockObjective
from unidiff.training.trainer import AVERAGE_FILE

SMALL = FullRecipe(
    steps=4,
    decay_steps=1,
    warmup_steps=1,
    hidden_size=64,
    num_layers=1,
    intermediate_size=64,
    save_steps=2,
    bf16=False,
    average_decay=0.5,
    adapts=False,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(bundled_checkpoint())


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerBase) -> SequenceEncoder:
    return SequenceEncoder(tokenizer, full_config(SMALL).layout)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    ids = np.random.default_rng(0).integers(20, 2000, 2000).astype(np.uint16)
    save_arrays(folder / "text_train.npz", ids=ids, starts=np.array([0, 900, 2000]))
    return folder


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six windows a step, in micro-batches of two."""
    monkeypatch.setattr(full_variant, "WINDOWS", {48: 2, 24: 4})
    monkeypatch.setattr(full_variant, "MICRO_BATCH", 2)


def tiny_full(**fields: int) -> UniDiffForBlockDiffusion:
    torch.manual_seed(2)
    config = full_config(SMALL)
    for name, value in fields.items():
        setattr(config, name, value)
    return UniDiffForBlockDiffusion(config).double()


def test_a_window_is_one_canvas_with_its_beginning_known(encoder: SequenceEncoder) -> None:
    arrays = {"ids": np.arange(20, 420), "starts": np.array([0, 400])}
    source = WholeWindow(RowMaker(encoder), arrays, length=40)
    known = []
    for seed in range(200):
        row = source.row(3, np.random.default_rng(seed))
        assert len(row) == 41
        assert not row.context_mask.any()
        assert (row.block_ids == 0).all()
        is_label = row.labels != -100
        known.append(int((~is_label).sum()))
        assert is_label[known[-1] :].all()
    assert known.count(1) == pytest.approx(200 * full_variant.PROB_BARE, abs=20)
    assert min(set(known) - {1}) == 2
    assert max(known) == 41 - full_variant.MIN_WANTED


def test_the_pass_is_a_plain_forward_under_the_full_mask(encoder: SequenceEncoder) -> None:
    model = tiny_full()
    sequence = join([run_of([2, 30, 31], "text"), run_of(range(40, 46), "text", wanted=True)])
    samples = [
        {"row": one_block_row(sequence, encoder.layout, first=0), "key": 5, "stream_position": 1}
    ]
    batch = BlockCollator()(samples)
    objective = full_objective(seed=0)
    loss, parts = objective(model, batch, model.config)
    masked, weight = objective.corrupt(training_streams(batch, None))
    noisy = torch.where(masked, model.config.mask_token_id, batch["input_ids"])
    labels = torch.where(masked, batch["input_ids"], -100)
    plain = model(input_ids=noisy, labels=labels).token_losses  # without a mask: its own pattern
    torch.testing.assert_close(loss, (plain * weight).sum() / 6)
    assert weight[masked].unique().tolist() == pytest.approx([6 / int(masked.sum())])
    assert parts["ar_count"] == 0


def test_a_seen_token_changes_what_is_said_before_it(encoder: SequenceEncoder) -> None:
    model = tiny_full().eval()
    ids = torch.tensor([[2, 1, 30, 31]])
    other = torch.tensor([[2, 1, 30, 99]])
    with torch.no_grad():
        assert not torch.allclose(model(ids).logits[0, 1], model(other).logits[0, 1])


def test_the_bound_of_a_full_model_is_exact_for_one_token(encoder: SequenceEncoder) -> None:
    model = tiny_full().eval()
    sequence = join([run_of([2, 30, 31], "text"), run_of([40], "text", wanted=True)])
    row = one_block_row(sequence, encoder.layout, first=0)
    batch = BlockCollator()([{"row": row, "key": 5, "stream_position": 1}])
    estimate = model.nll(batch, num_samples=2)
    labels = torch.tensor([[-100, -100, -100, 40]])
    with torch.no_grad():
        loss = model(torch.tensor([[2, 30, 31, 1]]), labels=labels).token_losses
    torch.testing.assert_close(estimate.nats_B, loss.sum(1).double())


def test_rows_with_a_context_or_an_ar_weight_are_refused(encoder: SequenceEncoder) -> None:
    model = tiny_full()
    sequence = join([run_of([2, 30, 31], "text"), run_of([40, 41], "text", wanted=True)])
    for first, objective, message in (
        (3, full_objective(0), "each sample must be one canvas"),
        (0, BlockObjective(), "ar_weight must be 0"),
    ):
        row = one_block_row(sequence, encoder.layout, first=first)
        batch = BlockCollator()([{"row": row, "key": 5, "stream_position": 1}])
        with pytest.raises(ValueError, match=message):
            objective(model, batch, model.config)


def test_the_stream_holds_windows_of_both_lengths(
    data_dir: Path, encoder: SequenceEncoder, short_windows: None
) -> None:
    stream = full_stream(data_dir, encoder, 6, seed=0)
    assert [len(stream[item]["row"]) for item in range(6)] == [48, 48, 24, 24, 24, 24]


def test_a_resumed_run_equals_one_that_was_not(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, short_windows: None, tmp_path: Path
) -> None:
    whole = train_full(data_dir, tmp_path / "whole", tokenizer, SMALL)
    train_full(
        data_dir,
        tmp_path / "cut",
        tokenizer,
        FullRecipe(**{**vars(SMALL), "steps": 3}),
    )
    resumed = train_full(data_dir, tmp_path / "cut", tokenizer, SMALL)
    assert (tmp_path / "cut" / "checkpoint-4").is_dir()
    for name, weight in whole.state_dict().items():
        assert weight.shape == resumed.state_dict()[name].shape
    again = load_file(tmp_path / "whole" / "checkpoint-4" / AVERAGE_FILE)
    assert all(torch.equal(again[name], dict(whole.named_parameters())[name]) for name in again)


def test_the_result_loads_and_generates(
    data_dir: Path, tokenizer: PreTrainedTokenizerBase, short_windows: None, tmp_path: Path
) -> None:
    train_full(data_dir, tmp_path, tokenizer, SMALL)
    folder = assemble_full(tmp_path, tmp_path / "checkpoint")
    model = UniDiffForBlockDiffusion.from_pretrained(folder)
    assert model.config.attention_pattern == "full"
    assert model.dtype == torch.bfloat16
    output = model.generate(torch.tensor([[2, 30]]), max_new_tokens=5, cache_reuse="dual")
    assert output.shape == (1, 7)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(tokenizer)


def test_the_recipe_starts_from_the_bundled_weights() -> None:
    model = full_variant.full_model(FullRecipe())
    bundled = load_file(bundled_checkpoint() / "model.safetensors")
    weight = bundled["model.layers.0.mlp.up_proj.weight"].float()
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, weight)
    assert model.dtype == torch.float32
    assert model.config.attention_pattern == "full"


def test_another_tokenizer_is_refused(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave --text-tokenizer out"):
        train_full(data_dir, tmp_path, ["only", "two"], SMALL)  # type: ignore[arg-type]
