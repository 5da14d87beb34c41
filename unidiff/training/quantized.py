"""A base held in 4 bits while an adapter is trained on it (QLoRA, arXiv 2305.14314).

The numbers are bitsandbytes' (nf4); nothing here quantises. What is saved is an adapter as ever,
and it loads on the base in full precision too.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, BitsAndBytesConfig

from unidiff.model.adapters import AdapterRecord, known_fingerprint
from unidiff.model.checkpoint import check_model_folder
from unidiff.model.modeling import UniDiffForBlockDiffusion

from .adapter_folder import record_of


def load_quantized(folder: str | Path, device: str = "cpu") -> UniDiffForBlockDiffusion:
    """The model of a checkpoint folder, its matrices in nf4 and all else in float32.

    Embedding, head and norms stay as they are.

    Args:
        folder: local checkpoint.
        device: where it is to be.

    Raises:
        ImportError: without bitsandbytes.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "a base in 4 bits needs bitsandbytes: pip install 'unidiff[qlora]'"
        ) from error
    options = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = UniDiffForBlockDiffusion.from_pretrained(
        folder, quantization_config=options, device_map=device, dtype=torch.float32
    )
    return keep_differentiable(model)


def keep_differentiable(model: Any) -> Any:
    """Forbid bitsandbytes to repack weights for a CPU's inference; returns the model.

    It repacks them at the first forward in evaluation mode and does not turn back in training; no
    gradient flows through a repacked weight, and only a warning says so.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def quantized_record(model: Any, folder: str | Path, task: str) -> AdapterRecord:
    """`record_of` a quantised base, with the fingerprint of the full weights in its folder.

    The files are mapped into memory and a few numbers of them read.

    Args:
        model: of `load_quantized`.
        folder: it was loaded from.
        task: name of the task.

    Raises:
        FileNotFoundError: if the folder lacks a file.
    """
    folder = Path(folder)
    check_model_folder(folder)
    with torch.device("meta"):
        whole = UniDiffForBlockDiffusion(AutoConfig.from_pretrained(folder))
    weights = {
        name: weight
        for path in sorted(folder.glob("*.safetensors"))
        for name, weight in load_file(path).items()
    }
    whole.load_state_dict(weights, strict=False, assign=True)
    if whole.config.tie_word_embeddings:
        whole.lm_head.weight = whole.model.embed_tokens.weight
    return replace(record_of(model, task), base_fingerprint=known_fingerprint(whole))
