"""Muon: torch's own numbers in bfloat16, orthogonal updates in float32."""

import pytest
import torch
from torch import Tensor

from unidiff.training.muon import Muon, orthogonalised

SHAPES = [(5, 9), (9, 5), (6, 6)]


def matrices() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]


def trained(parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return parameters


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
def test_in_bfloat16_it_is_torchs_bit_for_bit() -> None:
    facts = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
    own = matrices()
    trained(own, Muon(own, **facts, dtype=torch.bfloat16))
    theirs = matrices()
    trained(theirs, torch.optim.Muon(theirs, **facts, adjust_lr_fn="match_rms_adamw"))
    for one, other in zip(own, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(64, 200), (200, 64)])
def test_singular_values_become_nearly_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before = matrix.clone()
    values = torch.linalg.svdvals(orthogonalised(matrix, torch.float32))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    assert torch.equal(matrix, before)


def test_the_dtype_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_known, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("unidiff.training.muon.knows_bfloat16", lambda known=is_known: known)
        assert Muon(matrices(), lr=0.1)._dtype is dtype


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \[\(3,\)\]"):
        Muon([torch.zeros(3)], lr=0.1)
    with pytest.raises(ValueError, match="no closure"):
        Muon(matrices(), lr=0.1).step(lambda: 0.0)
