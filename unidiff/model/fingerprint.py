"""A short name of a model's present weights, so that a cache of other weights is recognised.

Reads a few numbers of the embedding, the first and the last layer, and which adapters are on:
microseconds, not a checksum of everything.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_NUM_SAMPLES = 4  # numbers read of each weight
_ADAPTER_STATE = ("active_adapters", "disable_adapters", "merged_adapters", "scaling")


def weights_key(trunk: nn.Module) -> str:
    """Hexadecimal fingerprint of a `UniDiffModel`, which an update or another adapter changes.

    Args:
        trunk: the model without its head; what the head does is not in a cache.
    """
    samples = [_sample(weight) for weight in _weights(trunk) if not weight.is_meta]
    digest = hashlib.blake2b(digest_size=8)
    if samples:
        device = samples[0].device
        numbers = torch.cat([sample.to(device, torch.float64) for sample in samples])
        digest.update(numbers.cpu().numpy().tobytes())
    for module in trunk.modules():
        if hasattr(module, "disable_adapters"):
            state = [getattr(module, name, None) for name in _ADAPTER_STATE]
            digest.update(repr(state).encode())
    return digest.hexdigest()


def _weights(trunk: nn.Module) -> Iterator[Tensor]:
    """Weights that are read: embedding, first and last layer, with the adapters on them."""
    layers = trunk.get_submodule("layers")
    assert isinstance(layers, nn.ModuleList)
    yield from trunk.get_submodule("embed_tokens").parameters()
    for index in sorted({0, len(layers) - 1}):
        yield from layers[index].parameters()


def _sample(weight: Tensor) -> Tensor:
    """(n,) up to `_NUM_SAMPLES` numbers of a weight, evenly spaced."""
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, len(flat) // _NUM_SAMPLES)][:_NUM_SAMPLES]
