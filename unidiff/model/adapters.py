"""Adapters on a model: folders of them, which base they belong to, which is active, merging.

An adapter folder holds peft's own two files and beside them what `from_pretrained` needs: a record
of the base, the configuration, the processor and the task's decoding options. It is written by
`unidiff.training.adapter_folder`.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unidiff.bundled import bundled_checkpoint
from unidiff.tokens.checkpoint import RECORD_FILE, check_exists, check_weights, read_json
from unidiff.tokens.layout import TokenLayout

from .checkpoint import weight_files
from .fingerprint import base_fingerprint
from .growth import grow_vocabulary

logger = logging.getLogger(__name__)

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
BUNDLED = "unidiff:bundled"  # the checkpoint in this package, wherever it is installed
_EXACT = (torch.float32, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class AdapterRecord:
    """What an adapter belongs to.

    Attributes:
        task: name of the task it was trained on; "" for none.
        base: folder or repository of the base, or `BUNDLED`.
        base_fingerprint: of the base's weights; "" if its precision has none.
        base_vocab_size: rows of the base's embedding.
        token_layout: the layout with the adapter's new ids; None: the base's. In memory, before
            the adapter is saved, that of the base.
    """

    task: str
    base: str
    base_fingerprint: str
    base_vocab_size: int
    token_layout: dict[str, Any] | None = None

    def to_json(self) -> str:
        """Content of `RECORD_FILE`."""
        return json.dumps(asdict(self), indent=2) + "\n"


def is_adapter_folder(folder: str | Path) -> bool:
    """Whether this is a local folder with a record of ours."""
    return (Path(folder) / RECORD_FILE).is_file()


def read_record(folder: str | Path) -> AdapterRecord:
    """The record in an adapter folder.

    Raises:
        FileNotFoundError: if a file of the adapter is missing.
        ValueError: if one is damaged.
    """
    folder = Path(folder)
    values = read_json(folder / RECORD_FILE)
    wanted = {field.name for field in fields(AdapterRecord)}
    if set(values) != wanted:
        raise ValueError(f"{folder / RECORD_FILE} must hold {sorted(wanted)}, got {sorted(values)}")
    check_exists(folder / CONFIG_FILE)
    check_weights(folder / WEIGHTS_FILE)
    return AdapterRecord(**values)


def adapter_base(folder: str | Path) -> str | None:
    """Folder or repository to load the base of a local adapter folder from; None if it is none.

    A folder that peft wrote, without a record of ours, names its base in `adapter_config.json`.

    Raises:
        FileNotFoundError: if a file of the adapter is missing, or its base was a local folder that
            is not there.
        ValueError: if a file is damaged, or names no base.
    """
    folder = Path(folder)
    if is_adapter_folder(folder):
        base = read_record(folder).base
        if base == BUNDLED:
            return str(bundled_checkpoint())
    elif (folder / CONFIG_FILE).is_file() and not weight_files(folder):
        base = str(read_json(folder / CONFIG_FILE).get("base_model_name_or_path") or "")
        if not base:
            raise ValueError(
                f"{folder / CONFIG_FILE} names no base (base_model_name_or_path): load the base "
                f"and call model.load_adapter({str(folder)!r})"
            )
    else:  # no adapter, or a whole model with one
        return None
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise FileNotFoundError(
            f"{folder} was trained on {base}, which is not there: load the base from where "
            f"it is now and call model.load_adapter({str(folder)!r})"
        )
    return base


def base_reference(model: Any) -> str:
    """How a record names the base of a model: `BUNDLED`, an absolute folder, or a repository."""
    source = str(model.name_or_path)
    if source and Path(source).is_dir():
        folder = Path(source).resolve()
        return BUNDLED if folder == bundled_checkpoint().resolve() else str(folder)
    return source


def known_fingerprint(model: Any, vocab_size: int | None = None) -> str:
    """Fingerprint of a model's own weights; "" where rounding or packing has changed them."""
    weight = model.model.layers[0].self_attn.o_proj.weight
    return base_fingerprint(model, vocab_size) if weight.dtype in _EXACT else ""


@contextmanager
def _quiet_about_others() -> Iterator[None]:
    """Silence peft and transformers on a second adapter, who call the first one's weights lost."""
    report = logging.getLogger("transformers.integrations.peft")
    level = report.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        report.setLevel(logging.ERROR)
        try:
            yield
        finally:
            report.setLevel(level)


class AdapterMethods:
    """What transformers' `load_adapter` and `set_adapter` lack, and merging in place.

    A base of the model class, before transformers' own.
    """

    def load_adapter(
        self, peft_model_id: Any = None, adapter_name: str | None = None, **kwargs: Any
    ) -> Any:
        """Add an adapter and make it the active one; arguments as transformers' method.

        Raises:
            ValueError: if the adapter belongs to another base.
            FileNotFoundError: if a file of it is missing.
        """
        if peft_model_id is not None and is_adapter_folder(peft_model_id):
            record = read_record(peft_model_id)
            check_base(self, record, peft_model_id)
            layout = record.token_layout and TokenLayout.from_dict(record.token_layout)
            if layout and not self.config.layout.holds(layout):  # type: ignore[attr-defined]
                grow_vocabulary(self, layout)  # type: ignore[arg-type]
            peft_model_id = str(peft_model_id)
        name = adapter_name or "default"
        # Renamings of the adapter's keys; saving the model would undo them in the model's own.
        renamings = getattr(self, "_weight_conversions", None)
        with _quiet_about_others():
            load: Any = super().load_adapter  # type: ignore[misc]
            loaded = load(peft_model_id, adapter_name, **kwargs)
        self._weight_conversions = renamings
        missing = sorted(key for key in loaded.missing_keys if f".{name}." in key)
        if missing:
            logger.warning(
                "adapter %r lacks %d weights, such as %s", name, len(missing), missing[0]
            )
        self.enable_adapters()  # type: ignore[attr-defined]
        self.set_adapter(name)
        return loaded

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Make an adapter the one that reads, or several together.

        Raises:
            ValueError: if there is none of that name.
        """
        super().set_adapter(adapter_name)  # type: ignore[misc]
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        for module in self.modules():  # type: ignore[attr-defined]
            tokens = getattr(module, "token_adapter", None)
            if tokens is not None:  # not every adapter has tokens; transformers assumes it
                own = [name for name in names if name in tokens.trainable_tokens_delta]
                module._active_adapter = tokens._active_adapter = own

    def merge_adapter(self) -> None:
        """Add the active adapters to the weights, which decode as fast as the base's.

        Raises:
            ValueError: if the model has no adapter.
        """
        for layer in self._adapter_layers():
            layer.merge(safe_merge=True)

    def unmerge_adapter(self) -> None:
        """Undo `merge_adapter`, up to rounding.

        Raises:
            ValueError: if the model has no adapter.
        """
        for layer in self._adapter_layers():
            if layer.merged:
                layer.unmerge()

    def merge_and_unload(self) -> Any:
        """The model itself, the active adapters in its weights and no adapter on it.

        Raises:
            ValueError: if the model has no adapter.
        """
        if any(not layer.merged for layer in self._adapter_layers()):
            self.merge_adapter()
        for name, module in list(self.named_modules()):  # type: ignore[attr-defined]
            layer = getattr(module, "token_adapter", module)
            is_outermost = not name.endswith((".token_adapter", ".base_layer"))
            if hasattr(layer, "base_layer") and is_outermost:
                parent, _, child = name.rpartition(".")
                whole = self.get_submodule(parent)  # type: ignore[attr-defined]
                setattr(whole, child, layer.get_base_layer())
        self.peft_config: dict[str, Any] = {}
        self._hf_peft_config_loaded = False
        return self

    def _adapter_layers(self) -> list[Any]:
        """Peft's layers in the model."""
        layers = [
            module
            for module in self.modules()  # type: ignore[attr-defined]
            if hasattr(type(module), "adapter_layer_names") and not hasattr(module, "token_adapter")
        ]
        if not layers:
            raise ValueError("the model has no adapter: load_adapter() one first")
        return layers


def check_base(model: Any, record: AdapterRecord, folder: str | Path) -> None:
    """Raise ValueError unless an adapter belongs to this model.

    In a precision that cannot be compared a warning says so instead.

    Args:
        model: `UniDiffForBlockDiffusion`, with or without adapters, none merged.
        record: of the adapter.
        folder: of the adapter, for the message.
    """
    size = record.base_vocab_size
    found = known_fingerprint(model, size) if model.config.vocab_size >= size else "fewer ids"
    if not found or not record.base_fingerprint:
        logger.warning(
            "%s: whether the adapter belongs to this base cannot be told in its precision", folder
        )
    elif found != record.base_fingerprint:
        source = base_reference(model) or "of no folder"
        if source == record.base:
            source += " with weights that have changed since they were loaded, as by a merge,"
        raise ValueError(
            f"{folder} is an adapter for {record.base} (fingerprint {record.base_fingerprint}), "
            f"and this model is {source} (fingerprint {found}): "
            "load its own base, as from_pretrained(adapter folder) does, or train it anew"
        )


def only_linear(module: nn.Module) -> nn.Linear | None:
    """The linear layer that a module is, or that it wraps without changing what it says; or None.

    A disabled adapter must leave the very products of the base, and those depend on their width.
    """
    if type(module) is nn.Linear:
        return module
    adapter: Any = getattr(module, "token_adapter", module)
    base = getattr(adapter, "base_layer", None)
    # Disabled and merged: its forward unmerges it first.
    is_plain = type(base) is nn.Linear and adapter.disable_adapters != adapter.merged
    return base if is_plain else None
