"""Whether bfloat16 pays: a processor that does not know it computes it a hundred times slower.

Measured on an EPYC with AVX2 only (torch 2.13, one thread, matrices of 1,024): 23 GFLOP/s in
float32, 0.3 in bfloat16.
"""

import logging

import torch

logger = logging.getLogger(__name__)


def native_bfloat16(is_wanted: bool) -> bool:
    """Whether to compute in bfloat16: as wanted, but not where no hardware knows it.

    Args:
        is_wanted: what the recipe says.
    """
    if not is_wanted or knows_bfloat16():
        return is_wanted
    logger.warning("this processor has no bfloat16 arithmetic: computing in float32 instead")
    return False


def knows_bfloat16() -> bool:
    """Whether the GPU or, without one, the CPU has bfloat16 arithmetic."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch, which cannot say
        return True
    known = torch.cpu.get_capabilities()
    if known.get("architecture") == "x86_64":
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return bool(known.get("bf16", True))
