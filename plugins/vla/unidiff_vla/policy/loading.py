"""Any policy from its folder."""

from pathlib import Path

import torch

from .chunk_policy import ChunkPolicy, kind_of_weights
from .policy import MaskedDiffusionPolicy
from .regression import RegressionPolicy
from .settings import PolicySettings

_POLICIES: dict[str, type[ChunkPolicy]] = {
    one.model_class.__name__: one for one in (MaskedDiffusionPolicy, RegressionPolicy)
}


def load_policy(
    folder: str | Path,
    settings: PolicySettings | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
) -> ChunkPolicy:
    """Policy of a checkpoint's folder, of the class that its weights ask for.

    Args:
        folder: as for `ChunkPolicy.from_pretrained`, like the others.
        settings: see there.
        device: see there.
        dtype: see there.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the weights are no policy's, or settings and checkpoint do not fit.
    """
    kind = kind_of_weights(Path(folder))
    if kind not in _POLICIES:
        raise ValueError(f"{folder} holds the weights of {kind}, expected one of {list(_POLICIES)}")
    return _POLICIES[kind].from_pretrained(folder, settings, device=device, dtype=dtype)
