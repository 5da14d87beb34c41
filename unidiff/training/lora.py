"""LoRA on a UniDiff model: what is adapted, read from a line such as `r=8,alpha=16,layers=2-5`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from unidiff.model.experts import STACKS, UniDiffMixture
from unidiff.plugins.task import LoRADefaults

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_EXPERTS = "experts."  # before the name of a stack of experts' weights
_TOWER = "vision."  # before the names of what reads pictures, which is never adapted
_KEYS = ("r", "alpha", "dropout", "targets", "layers")


@dataclass(frozen=True)
class LoRAOptions:
    """What is adapted, and how much.

    Attributes:
        r: rank of the update of each matrix.
        alpha: scale; the update counts alpha / r times.
        dropout: of the update's input, in [0, 1).
        target_modules: names of the linear layers; `experts.down_proj` is the stack of all experts'
            weights. Of the default ones a model may lack some.
        layers: indices of the transformer layers; None: all.
        new_ids: rows of the embedding that are trained too (peft's `trainable_token_indices`).
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] = LoRADefaults.target_modules
    layers: tuple[int, ...] | None = None
    new_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.r < 1 or self.alpha < 1:
            raise ValueError(
                f"LoRA needs r >= 1 and alpha >= 1, got r={self.r}, alpha={self.alpha}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.target_modules:
            raise ValueError("LoRA needs at least one target module, got none")


def lora_options(text: str, defaults: LoRADefaults) -> LoRAOptions:
    """Options of a task's defaults and a line that changes some of them.

    Args:
        text: `name=value` pairs separated by commas: r, alpha, dropout, targets (names joined by
            +, such as q_proj+experts.up_proj), layers (such as 0-2+5); "" changes nothing. Without
            alpha, alpha is 2 r.
        defaults: the task's.

    Raises:
        ValueError: if a name is unknown, given twice, or a value is none.
    """
    given: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or name not in _KEYS or name in given:
            raise ValueError(
                f"--lora takes name=value pairs, each once, of {_KEYS}; got {pair!r} in {text!r}"
            )
        given[name] = value
    options = LoRAOptions(
        defaults.r, defaults.alpha, defaults.dropout, tuple(defaults.target_modules)
    )
    try:
        if "r" in given:
            options = replace(options, r=int(given["r"]), alpha=2 * int(given["r"]))
        if "alpha" in given:
            options = replace(options, alpha=int(given["alpha"]))
        if "dropout" in given:
            options = replace(options, dropout=float(given["dropout"]))
    except ValueError as error:
        raise ValueError(f"--lora {text!r}: {error}") from error
    if "targets" in given:
        options = replace(options, target_modules=tuple(given["targets"].split("+")))
    if "layers" in given:
        options = replace(options, layers=_layers(given["layers"]))
    return options


def add_lora(model: Any, options: LoRAOptions, name: str = "default", seed: int = 0) -> Any:
    """Put a fresh adapter on a model, active; everything else is frozen. Returns the model.

    Args:
        model: `UniDiffForBlockDiffusion`, changed in place.
        options: what is adapted.
        name: of the adapter.
        seed: of its first weights.

    Raises:
        ValueError: if a target module, a layer or an id does not exist.
    """
    from peft import LoraConfig

    targets = _targets(model, options)
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=[name for name in targets if not name.startswith(_EXPERTS)] or None,
        target_parameters=_stacks(model, options, targets) or None,
        layers_to_transform=None if options.layers is None else list(options.layers),
        layers_pattern=None if options.layers is None else "layers",
        trainable_token_indices=list(options.new_ids) or None,
        exclude_modules=None if model.vision is None else rf"{_TOWER}.*",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config, name)
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{name}" in parameter_name and _is_adapter(parameter_name))
    return model


def _is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return "lora_" in name or "trainable_tokens_delta" in name


def _layers(text: str) -> tuple[int, ...]:
    """Indices of `0-2+5`."""
    found: set[int] = set()
    for part in text.split("+"):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"layers must look like 0-2+5, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        found |= set(range(first, last + 1))
    if not found:
        raise ValueError(f"layers {text!r} names no layer: the first must not exceed the last")
    return tuple(sorted(found))


def _stacks(model: Any, options: LoRAOptions, targets: Sequence[str]) -> list[str]:
    """Full names of the stacks of experts' weights that are adapted."""
    names = [name for name in targets if name.startswith(_EXPERTS)]
    layers = model.config.mixture_layers
    if options.layers is not None:
        layers = tuple(index for index in layers if index in options.layers)
    return [f"model.layers.{index}.mlp.{name}" for index in layers for name in names]


def _targets(model: Any, options: LoRAOptions) -> tuple[str, ...]:
    """What is adapted, of the default targets those that the model has.

    Raises:
        ValueError: if something named is not in the model, or experts would have a dropout.
    """
    known = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(_TOWER)
    }
    if any(isinstance(module, UniDiffMixture) for module in model.modules()):
        known |= {f"{_EXPERTS}{name}" for name in STACKS}
    targets = options.target_modules
    if targets == LoRADefaults.target_modules:
        targets = tuple(name for name in targets if name in known)
    _check_known("target modules", targets, known)
    if options.dropout and any(name.startswith(_EXPERTS) for name in targets):
        raise ValueError(f"experts are adapted without dropout, got {options.dropout}")
    num_layers, vocab_size = model.config.num_hidden_layers, model.config.vocab_size
    if options.layers is not None and max(options.layers) >= num_layers:
        raise ValueError(f"layers {options.layers} must be below {num_layers}, the model's number")
    if options.new_ids and not 0 <= min(options.new_ids) <= max(options.new_ids) < vocab_size:
        raise ValueError(f"new ids must lie in [0, {vocab_size}), got {options.new_ids}")
    return targets


def _check_known(what: str, names: Sequence[str], known: set[str]) -> None:
    """Raise ValueError for names that are not known."""
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(f"the model has no {what} {unknown}; it has {sorted(known)}")
