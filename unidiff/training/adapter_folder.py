"""Writing an adapter folder: all that `from_pretrained(folder)` needs but the base's weights."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.model.adapters import (
    CONFIG_FILE,
    RECORD_FILE,
    WEIGHTS_FILE,
    AdapterRecord,
    base_reference,
    is_adapter_folder,
    known_fingerprint,
)

_PREFIX = "base_model.model."  # of peft's own files: `PeftModel.from_pretrained` asks for it


def record_of(model: Any, task: str) -> AdapterRecord:
    """What an adapter trained on this model belongs to; taken before the vocabulary grows.

    Args:
        model: the base, with or without adapters, none merged.
        task: name of the task.
    """
    return AdapterRecord(
        task=task,
        base=base_reference(model),
        base_fingerprint=known_fingerprint(model),
        base_vocab_size=model.config.vocab_size,
        token_layout=model.config.token_layout,
    )


def save_adapter(
    model: Any,
    folder: str | Path,
    processor: Any,
    record: AdapterRecord,
    *,
    decoding: Mapping[str, Any] | None = None,
    name: str = "default",
) -> Path:
    """Write an adapter whole or not at all; an adapter that was in the folder is replaced.

    The folder holds peft's adapter, the record of its base, the model's configuration, the
    processor and the decoding options: `UniDiffForBlockDiffusion`, `AutoModelForCausalLM` and
    `UniDiffProcessor.from_pretrained(folder)` read it.

    Args:
        model: with the adapter.
        folder: to write.
        processor: of the base, with the adapter's own modalities.
        record: `record_of` the base.
        decoding: keywords of `generate()` that become the folder's defaults.
        name: of the adapter in the model.

    Raises:
        ValueError: if the model has no adapter of that name.
        FileExistsError: if the folder holds something else than an adapter.
    """
    configs = getattr(model, "peft_config", {})
    if name not in configs:
        raise ValueError(f"the model has no adapter {name!r}; it has {sorted(configs)}")
    folder = Path(folder)
    check_replaceable(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_adapter_weights(model, partial, name)
    config = configs[name]
    config.base_model_name_or_path, config.inference_mode = record.base, True
    config.save_pretrained(partial)
    config.inference_mode = False
    layout = model.config.token_layout
    whole = replace(record, token_layout=None if layout == record.token_layout else layout)
    (partial / RECORD_FILE).write_text(whole.to_json(), encoding="utf-8")
    model.config.save_pretrained(partial)
    processor.save_pretrained(partial)
    _generation_config(model, decoding).save_pretrained(partial)
    assert (partial / CONFIG_FILE).is_file()
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def write_adapter_weights(model: Any, folder: Path, name: str = "default") -> None:
    """Write what an adapter has learnt into `folder / WEIGHTS_FILE`, in peft's own form."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    if model.peft_config[name].trainable_token_indices is None:
        # Peft looks for rows of this adapter wherever another one has rows.
        weights = {
            key.replace(f".{name}.", "."): value
            for key, value in model.state_dict().items()
            if "lora_" in key and f".{name}." in key
        }
    else:
        # Rows that the vocabulary grew by are made again on loading; peft would ask the hub.
        weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    save_file(
        {_PREFIX + key: value.contiguous().cpu() for key, value in weights.items()},
        folder / WEIGHTS_FILE,
    )


def read_adapter_weights(folder: str | Path) -> dict[str, Any]:
    """What `write_adapter_weights` wrote, by the names that the model knows it by."""
    from safetensors.torch import load_file

    weights = load_file(Path(folder) / WEIGHTS_FILE)
    return {key.removeprefix(_PREFIX): value for key, value in weights.items()}


def check_replaceable(folder: Path) -> None:
    """Raise FileExistsError if a folder is there and holds something else than an adapter."""
    if folder.exists() and not is_adapter_folder(folder):
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise FileExistsError(
            f"{folder} exists and is no adapter folder: it would be replaced; choose another one"
        )


def _generation_config(model: Any, decoding: Mapping[str, Any] | None) -> UniDiffGenerationConfig:
    """The model's decoding options with a task's over them, those that can be saved."""
    values = model.generation_config.to_dict()
    values |= {name: value for name, value in (decoding or {}).items() if name != "tokenizer"}
    return UniDiffGenerationConfig(**values)
