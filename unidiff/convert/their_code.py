"""A checkpoint's own model: what code it brings, its class with the weights in it, its logits.

Published code was written for the transformers of its day, and fails or loads wrongly with the
loader of this one. So a class that a checkpoint brings is made and filled here by the names of its
tensors; one that transformers has is loaded by transformers.
"""

# Shapes: L sequence, V ids.

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from unidiff.tokens.checkpoint import some

from .loading import Converted
from .tensors import by_name

# What auto_map may call a model, those that give logits first.
_KINDS = ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModel")


def code_of(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """What would run if a checkpoint's own classes were loaded; empty where transformers has them.

    Args:
        folder: of the checkpoint.
        config: its `config.json`.

    Returns:
        For each class its name, and the file or the other repository that it comes from.
    """
    found = []
    for target in dict.fromkeys((config.get("auto_map") or {}).values()):
        repository, dashes, place = str(target).rpartition("--")
        module, _, kind = place.rpartition(".")
        found.append(f"{kind} of {repository if dashes else folder}/{module}.py")
    return found


def check_comparable(opened: Converted) -> None:
    """Raise ValueError unless there is a class that a checkpoint can be compared with.

    No code of the checkpoint runs and no weight is read.

    Args:
        opened: the checkpoint.
    """
    if code_of(opened.folder.path, opened.folder.config):
        _place_of(opened)
    elif opened.family.own_class is None:
        _known_class(opened)


def their_model(opened: Converted, dtype: torch.dtype, device: str) -> Any:
    """The checkpoint's own model, to be used; its code runs here, where it has any.

    Args:
        opened: the checkpoint.
        dtype: of its weights.
        device: that they shall be on.

    Raises:
        ImportError: if its code needs a package that is not here.
        ValueError: if there is no class, or it cannot be made or lacks weights.
    """
    path = opened.folder.path
    if not code_of(path, opened.folder.config):
        return _known_model(opened, dtype).to(device).eval()
    place = _place_of(opened)
    with _blamed(place.rpartition(".")[2], opened, "it was made"):
        kind = get_class_from_dynamic_module(place, str(path))
        settings = opened.family.own_settings
        config = AutoConfig.from_pretrained(path, trust_remote_code=True, **settings)
        with _numbers_of(dtype):
            model = kind(config)
        if opened.config.tie_word_embeddings and model.get_output_embeddings() is not None:
            model.get_output_embeddings().weight = model.get_input_embeddings().weight
    _fill(model, opened)
    return model.to(device).eval()


def _known_model(opened: Converted, dtype: torch.dtype) -> Any:
    """The model of a checkpoint without code, by transformers' class; see `their_model`."""
    path, family = opened.folder.path, opened.family
    if family.own_class is not None:
        with _numbers_of(dtype):
            model, prefix = family.own_class(opened.config)
        _fill(model, opened, prefix)
        return model
    kind = _known_class(opened)
    model, notes = kind.from_pretrained(path, dtype=dtype, output_loading_info=True)
    if lacking := sorted(notes["missing_keys"]):
        raise ValueError(
            f"{type(model).__name__} of transformers finds no {some(lacking)} in {path}, whose "
            "weights have other names: there is nothing to compare with"
        )
    return model


def _known_class(opened: Converted) -> Any:
    """The auto class of transformers for a checkpoint; raises ValueError where there is none."""
    path, kind, cause = opened.folder.path, None, None
    try:
        kind = type(AutoConfig.from_pretrained(path))
    except ValueError as error:
        cause = error
    if kind in MODEL_FOR_MASKED_LM_MAPPING:
        return AutoModelForMaskedLM
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    raise ValueError(
        f"{path} has no code of its own (auto_map in config.json), and transformers has no class "
        f"for {opened.family.name}: there is nothing to compare with. {_where(opened)}"
    ) from cause


def _where(opened: Converted) -> str:
    """Where the class of a checkpoint is to be found, as far as it is known."""
    if opened.family.own_code is not None:
        return (
            f"Its class is part of {opened.family.own_code}, a program of its own that is not run "
            "here"
        )
    return (
        "If its repository has .py files, lay them beside the weights, with the config.json that "
        "names them in auto_map"
    )


def their_logits(model: Any, opened: Converted, ids_L: Tensor) -> Tensor:
    """(L, V) float32 logits of a row under the checkpoint's pattern.

    Args:
        model: of `their_model`.
        opened: the checkpoint.
        ids_L: (L,) int64.

    Raises:
        ValueError: if its code fails, or gives no logits.
    """
    given = {"input_ids": ids_L[None], **opened.family.own_inputs(len(ids_L), opened.config)}
    place = next(model.parameters()).device
    given = {n: one.to(place) if isinstance(one, Tensor) else one for n, one in given.items()}
    said = ", ".join(f"{name} {_short(value)}" for name, value in given.items())
    ids_BL = given.pop("input_ids")
    with _blamed(type(model).__name__, opened, f"it was called with {said}"):
        output = model(ids_BL, **given)
    logits = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or tuple(logits.shape[:2]) != (1, len(ids_L)):
        raise ValueError(
            f"{type(model).__name__}, the checkpoint's own class, was called with {said} and gave "
            f"{_short(output)}, where logits of shape (1, {len(ids_L)}, V) were expected"
        )
    return logits[0].float().cpu()


def _place_of(opened: Converted) -> str:
    """File and name of the class that `config.json` names."""
    named = opened.folder.config["auto_map"]
    place = next((named[one] for one in _KINDS if one in named), None)
    if place is None:
        raise ValueError(
            f"auto_map in {opened.folder.path / 'config.json'} names {some(named)}, and what can "
            f"be compared is one of {', '.join(_KINDS)}"
        )
    return str(place)


@torch.no_grad()
def _fill(model: Any, opened: Converted, prefix: str = "") -> None:
    """Write the weights into a model, one in memory at a time; of tied ones there may be one.

    Args:
        model: to be filled.
        opened: the checkpoint.
        prefix: what names have in the checkpoint before those of the model.
    """
    own, filled = model.state_dict(), set()
    for name, tensor in by_name(opened.files).items():
        name = name.removeprefix(prefix)
        if name not in own:  # frequencies that it does not save
            continue
        if tuple(own[name].shape) != tensor.shape:
            raise ValueError(
                f"{name} has the shape {tuple(own[name].shape)} in {type(model).__name__}, the "
                f"checkpoint's own class, and {tensor.shape} in its weights"
            )
        own[name].copy_(tensor.read())
        filled.add(own[name].data_ptr())
    lacking = [n for n, one in model.named_parameters() if one.data_ptr() not in filled]
    if lacking:
        raise ValueError(
            f"{type(model).__name__}, the checkpoint's own class, has {some(lacking)}, which "
            f"{opened.folder.path} lacks: code and weights belong to different checkpoints"
        )


@contextmanager
def _blamed(kind: str, opened: Converted, when: str) -> Iterator[None]:
    """Name the class in what its code raises; a package that is missing is said as it is."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # somebody else's code raises what it likes
        written_for = opened.folder.config.get("transformers_version", "an unnamed version")
        raise ValueError(
            f"{kind}, the checkpoint's own class, failed when {when}: "
            f"{type(error).__name__}: {error} (it was written for transformers {written_for}; "
            f"here is {transformers.__version__})"
        ) from error


@contextmanager
def _numbers_of(dtype: torch.dtype) -> Iterator[None]:
    """What is made within has numbers of this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _short(value: Any) -> str:
    """Shape and type of a tensor, a plain value, or the class of something else."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return str(value) if isinstance(value, (bool, int, str)) else type(value).__name__
