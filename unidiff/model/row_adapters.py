"""Rows of one batch that different adapters read.

peft's layers take the name of an adapter for each line of their input. A decode forward has a line
for each row of the cache, the head one for each position asked for; both change from forward to
forward, so the names are handed over anew each time, by hooks.
"""

# Shapes: B lines of the input of a layer.

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unidiff.generation.options import BASE

if TYPE_CHECKING:
    from .modeling import UniDiffForBlockDiffusion


class RowAdapters:
    """The adapter layers inside a module."""

    def __init__(self, module: nn.Module) -> None:
        """Find them; their adapters may change later."""
        modules: list[Any] = list(module.modules())
        self.tokens = [one for one in modules if _is_token_wrapper(one)]
        self.layers = [one for one in modules if _is_lora(one)]

    def __bool__(self) -> bool:
        return bool(self.tokens or self.layers)

    @property
    def active(self) -> list[str]:
        """Names of the adapters that read where nobody says otherwise; empty while disabled."""
        first = next(iter([*self.layers, *(one.token_adapter for one in self.tokens)]), None)
        if first is None or first.disable_adapters:
            return []
        return list(first.active_adapters)

    @contextmanager
    def reading(self, names: Sequence[str | None]) -> Iterator[None]:
        """Let each line of the next forward be read by its own adapter.

        Args:
            names: one for each line; None: what is active. All None: as ever.
        """
        if not self or all(name is None for name in names):
            yield
            return
        active = (self.active or [BASE])[0]
        readers = [active if name is None else name for name in names]
        handles = []
        try:
            for layer in self.layers:
                hook = partial(_tell, readers)
                handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
            for wrapper in self.tokens:
                handles.append(wrapper.register_forward_pre_hook(_untell, with_kwargs=True))
                handles.append(wrapper.register_forward_hook(partial(_read_tokens, readers)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def check_row_adapters(model: "UniDiffForBlockDiffusion", names: Sequence[str]) -> None:
    """Raise ValueError unless the model has these adapters and may mix them.

    Args:
        model: with its adapters.
        names: as `adapter_names` has them.
    """
    found = RowAdapters(model)
    known = {name for layer in found.layers for name in layer.lora_A}
    known |= {name for layer in found.layers for name in layer.lora_embedding_A}
    known |= {name for one in found.tokens for name in one.token_adapter.trainable_tokens_delta}
    missing = sorted(set(names) - known - {BASE})
    if missing:
        raise ValueError(
            f"adapter_names asks for {missing}, and the model has {sorted(known)}: load_adapter() "
            f"them first; {BASE!r} or None is the base"
        )
    if model.training:
        raise ValueError("adapter_names is for decoding: call model.eval() first")
    tuned = [*found.layers, *(one.token_adapter for one in found.tokens)]
    if any(layer.merged for layer in tuned):
        raise ValueError("adapter_names needs unmerged weights: unmerge the adapter first")
    if any(layer.disable_adapters for layer in tuned):
        raise ValueError("adapter_names was given while adapters are disabled: enable_adapters()")
    if any(hasattr(layer, "parameter_name") for layer in found.layers):
        raise ValueError(
            "adapter_names takes adapters of linear layers, and the model has one of its experts: "
            "decode under one adapter at a time"
        )
    if len(found.active) > 1:
        raise ValueError(
            f"adapter_names needs one active adapter, there are {found.active}: set_adapter() one"
        )
    changed = {name for layer in found.layers for name in layer.lora_variant} & set(names)
    if changed:
        raise ValueError(
            f"adapter_names takes plain LoRA, and {sorted(changed)} are variants of it"
        )


def names_from_peft(model: nn.Module) -> list[str] | None:
    """The `adapter_names` that a `PeftModel` around this model was called with, None without.

    It keeps them from us, and hands them to its layers as if each had a line for each row.
    """
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, partial) and "adapter_names" in hook.keywords:
                return list(hook.keywords["adapter_names"])
    return None


def _is_lora(module: nn.Module) -> bool:
    """Whether this is a LoRA layer of peft."""
    return hasattr(type(module), "adapter_layer_names") and hasattr(module, "lora_A")


def _is_token_wrapper(module: nn.Module) -> bool:
    """Whether this is peft's wrapper of an embedding or head with trainable tokens."""
    return hasattr(module, "token_adapter")


def _tell(readers: list[str], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Hand a LoRA layer the names; whoever handed it some before is overruled."""
    del module
    return args, {**kwargs, "adapter_names": readers}


def _untell(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Take the names away from a layer that would misread them."""
    del module
    return args, {name: value for name, value in kwargs.items() if name != "adapter_names"}


def _read_tokens(readers: list[str], wrapper: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
    """(B, ...) output of an embedding or head with each line's own trainable tokens."""
    adapter, lines = wrapper.token_adapter, args[0]
    mixed = adapter.base_layer(lines).clone()
    for name in set(readers) & set(adapter.trainable_tokens_delta):
        rows = [row for row, reader in enumerate(readers) if reader == name]
        mixed[rows] = adapter.forward_adapters(lines[rows], [name])
    return mixed.to(output.dtype)
