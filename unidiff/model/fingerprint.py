"""Short names of weights: those a cache was computed with, those an adapter was trained on.

Both read a few numbers of every weight: milliseconds, not a checksum of everything.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

_NUM_SAMPLES = 4  # numbers read of each weight
_ADAPTER_STATE = ("active_adapters", "disable_adapters", "merged_adapters", "scaling")


def weights_key(trunk: nn.Module) -> str:
    """Hexadecimal fingerprint of a `UniDiffModel`, which an update or another adapter changes.

    Args:
        trunk: the model without its head; what the head does is not in a cache.
    """
    weights = chain(trunk.parameters(), trunk.buffers())  # buffers: biases of experts
    digest = hashlib.blake2b(_numbers(weights, torch.float64), digest_size=8)
    for module in trunk.modules():
        if hasattr(type(module), "adapter_layer_names"):  # a layer of peft
            state = [getattr(module, name, None) for name in _ADAPTER_STATE]
            digest.update(repr(state).encode())
    return digest.hexdigest()


def base_fingerprint(model: nn.Module, vocab_size: int | None = None) -> str:
    """Hexadecimal fingerprint of a model's own weights, whatever adapters are on it.

    Numbers are rounded to bfloat16, so that a checkpoint has the same one in either precision.

    Args:
        model: a `UniDiffForBlockDiffusion`; merged adapters count as its own weights.
        vocab_size: rows of the embedding that count, in ids; None: all. The rows behind them were
            added for an adapter.
    """
    digest, weights = hashlib.blake2b(digest_size=8), []
    for name, weight in _base_weights(model):
        rows = weight[:vocab_size] if "embed_tokens" in name or "lm_head" in name else weight
        digest.update(f"{name} {tuple(rows.shape)};".encode())
        weights.append(rows)
    digest.update(_numbers(weights, torch.bfloat16))
    return digest.hexdigest()


def _base_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each weight that no adapter brought, under the name it has without one."""
    brought = {
        id(weight)
        for module in model.modules()
        for name in getattr(module, "adapter_layer_names", ())
        for weight in getattr(module, name, nn.Module()).parameters()
    }
    # The bias of experts is a checkpoint's only buffer; peft's and rotary ones are no weights.
    biases = ((n, buffer) for n, buffer in model.named_buffers() if n.endswith(".expert_bias"))
    for name, weight in chain(model.named_parameters(), biases):
        if id(weight) not in brought and "modules_to_save." not in name:
            for wrapper in ("base_model.model.", ".base_layer", ".original_module"):
                name = name.replace(wrapper, "")
            yield name.replace(".token_adapter", ""), weight


def _numbers(weights: Iterable[Tensor], dtype: torch.dtype) -> bytes:
    """Samples of all weights that hold numbers, rounded to a dtype, as bytes."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    with torch.no_grad():
        for weight in weights:
            if not weight.is_meta:
                kinds.setdefault((weight.dtype, weight.device), []).append(_sample(weight))
        joined = [torch.cat(samples).to(dtype) for samples in kinds.values()]
    return b"".join(part.to("cpu", torch.float64).numpy().tobytes() for part in joined)


def _sample(weight: Tensor) -> Tensor:
    """(n,) up to `_NUM_SAMPLES` numbers of a weight, evenly spaced."""
    size = weight.numel()
    if not weight.is_contiguous():
        weight = weight.reshape(-1)
    return weight.as_strided((min(size, _NUM_SAMPLES),), (max(1, size // _NUM_SAMPLES),))
