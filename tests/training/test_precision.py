"""bfloat16 is used where it is wanted and where the processor knows it."""

import logging

import pytest
import torch

from unidiff.training.precision import native_bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": False}, False),
        ({"architecture": "aarch64", "bf16": True}, True),
    ],
)
def test_a_processor_without_bfloat16_computes_in_float32(
    capabilities: dict,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with caplog.at_level(logging.WARNING):
        assert native_bfloat16(True) is expected
    assert ("no bfloat16" in caplog.text) is not expected
    assert native_bfloat16(False) is False
