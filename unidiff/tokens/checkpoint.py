"""The files in a checkpoint folder: are those of the processor all there and whole?

The model's files are checked with the same functions (`unidiff/model/checkpoint.py`). Knows file
names; knows nothing of sequences.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

RECORD_FILE = "unidiff_adapter.json"  # of an adapter folder
IMAGE_TOKENIZER_FOLDER = "image_tokenizer"
TEMPLATE_FILE = "chat_template.jinja"
_JSON_FILES = ("processor_config.json", "tokenizer_config.json")
REMEDY = "fetch the checkpoint again, or write it with UniDiffProcessor.save_pretrained"


def check_processor_folder(folder: Path) -> None:
    """Raise an error that names the first missing or damaged file of the processor.

    Args:
        folder: a local checkpoint folder.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is cut short or is no JSON.
    """
    if (folder / RECORD_FILE).is_file() and not (folder / _JSON_FILES[0]).is_file():
        raise FileNotFoundError(
            f"{folder} is an adapter without a processor, as plugins bring it along: take model "
            f"and processor of its base, and model.load_adapter({str(folder)!r})"
        )
    for name in (*_JSON_FILES, TEMPLATE_FILE):
        check_exists(folder / name)
    if not (folder / "tokenizer.model").is_file():  # sentencepiece's alone
        check_exists(folder / "tokenizer.json")
        read_json(folder / "tokenizer.json")
    if not (folder / TEMPLATE_FILE).read_bytes().strip():
        raise ValueError(f"{folder / TEMPLATE_FILE} is empty: {REMEDY}")
    contents = {name: read_json(folder / name) for name in _JSON_FILES}
    if (folder / "config.json").is_file():  # the model's; transformers reads it for the tokenizer
        read_json(folder / "config.json")
    layout = contents["processor_config.json"].get("token_layout")
    if not isinstance(layout, dict) or "ranges" not in layout:
        raise ValueError(f"{folder / _JSON_FILES[0]} holds no 'token_layout': {REMEDY}")
    if "image" in layout["ranges"]:
        check_exists(folder / IMAGE_TOKENIZER_FOLDER / "config.json")
        read_json(folder / IMAGE_TOKENIZER_FOLDER / "config.json")
        check_weights(folder / IMAGE_TOKENIZER_FOLDER / "model.safetensors")


def check_template(tokenizer: Any, template: str, source: str | Path) -> None:
    """Raise ValueError naming the template's file if one user turn cannot be written with it.

    Args:
        tokenizer: what renders the template.
        template: Jinja text.
        source: folder or repository that it came from.
    """
    turn = [{"role": "user", "content": "?"}]
    try:
        tokenizer.apply_chat_template(turn, chat_template=template, tokenize=False)
    except Exception as error:  # Jinja's errors share no class with ours
        raise ValueError(
            f"{Path(source, TEMPLATE_FILE)} is damaged or no chat template "
            f"({type(error).__name__}: {error}): {REMEDY}"
        ) from error


def some(names: Iterable[str]) -> str:
    """The first few names, sorted, and how many more there are; "nothing" where there are none."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:3]) or "nothing"
    return shown if len(ordered) <= 3 else f"{shown} and {len(ordered) - 3} more"


def check_exists(path: Path) -> None:
    """Raise FileNotFoundError if there is no such file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {REMEDY}")


def read_json(path: Path) -> dict[str, Any]:
    """The file's object; raises ValueError if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): {REMEDY}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(values).__name__}: {REMEDY}")
    return values


def check_weights(path: Path) -> None:
    """Raise an error if a safetensors file is missing or cut short; reads its header only."""
    check_exists(path)
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): {REMEDY}") from error
