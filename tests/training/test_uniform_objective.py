"""Uniform noise learned: a tiny model memorises sequences, and decoding gives them back."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.data.blocks import TrainingRow
from unidiff.data.collator import BlockCollator
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.streams import training_streams
from unidiff.training.objective import BlockObjective
from unidiff.training.uniform_objective import UniformObjective

VOCAB, LENGTH, COUNT = 24, 4, 4


def sequences() -> Tensor:
    """(4, 5) a prompt token of its own, then four random tokens."""
    generator = torch.Generator().manual_seed(0)
    response = torch.randint(4, VOCAB, (COUNT, LENGTH), generator=generator)
    return torch.cat([torch.arange(4, 4 + COUNT)[:, None], response], dim=1)


def batch_of(ids: Tensor, round_number: int) -> dict[str, Tensor]:
    """Each sequence as one block behind its prompt, with keys of this round."""
    rows = []
    index = np.arange(ids.shape[1])
    for number, row in enumerate(ids.numpy()):
        training_row = TrainingRow(
            input_ids=row,
            modality_ids=np.zeros_like(row),
            position_ids=np.broadcast_to(index, (3, len(row))),
            labels=np.where(index > 0, row, -100),
            block_ids=np.where(index > 0, 0, -1),
            context_mask=np.ones(len(row), dtype=bool),
            token_index=index,
        )
        key = round_number * len(ids) + number
        rows.append({"row": training_row, "key": key, "stream_position": key})
    return BlockCollator()(rows)


def model_of(kind: str, **fields: Any) -> UniDiffForBlockDiffusion:
    torch.manual_seed(1)
    settings = {
        "vocab_size": VOCAB,
        "canvas_length": LENGTH,
        "eos_token_id": None,
        "hidden_size": 32,
        "head_dim": 16,
        "num_hidden_layers": 1,
        **fields,
    }
    return UniDiffForBlockDiffusion(
        UniDiffConfig(noise_process="uniform", uniform_prediction=kind, **settings)
    )


@pytest.mark.parametrize(("kind", "rounds"), [("leave_one_out", 500), ("posterior", 180)])
def test_memorised_sequences_come_back(kind: str, rounds: int) -> None:
    model, ids, objective = model_of(kind), sequences(), UniformObjective()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model.train()
    for number in range(rounds):
        batch = batch_of(ids.repeat(8, 1), number)
        loss, _ = objective(model, batch, model.config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    for way in (
        {"unmasking_strategy": "ancestral", "max_denoising_steps": 8},
        {"revision": "renoise", "unmasking_strategy": "entropy_bound", "max_denoising_steps": 8},
    ):
        found = model.generate(ids[:, :1], max_new_tokens=LENGTH, seed=3, **way)
        assert float((found == ids)[:, 1:].double().mean()) > 0.9


def test_noise_follows_the_time_and_spares_what_has_no_label() -> None:
    model, ids = model_of("posterior"), sequences()
    batch = batch_of(ids, 0)
    batch["labels"][0, 3] = -100
    changed, expected = [], []
    for number in range(60):
        streams = training_streams(batch | batch_of(ids, number), None)
        noisy, time = UniformObjective().corrupt(streams, model.config)
        assert not (noisy == model.config.mask_token_id).any()
        changed.append((noisy != streams.canvas_values("input_ids")).double().mean())
        expected.append(time.mean() * (1 - 1 / (VOCAB - 1)))
    assert float(torch.stack(changed).mean()) == pytest.approx(
        float(torch.stack(expected).mean()), abs=0.03
    )
    streams = training_streams(batch, None)
    noisy, _ = UniformObjective().corrupt(streams, model.config)
    assert noisy[0, 2] == ids[0, 3]


def test_each_objective_refuses_the_others_noise() -> None:
    batch = batch_of(sequences(), 0)
    uniform = model_of("posterior")
    absorbing = UniDiffForBlockDiffusion(UniDiffConfig(vocab_size=VOCAB))
    with pytest.raises(ValueError, match="needs a model with noise_process='absorbing'"):
        BlockObjective()(uniform, batch, uniform.config)
    with pytest.raises(ValueError, match="needs a model with noise_process='absorbing'"):
        uniform.nll(batch)
    with pytest.raises(ValueError, match="needs a model with noise_process='uniform'"):
        UniformObjective()(absorbing, batch, absorbing.config)
