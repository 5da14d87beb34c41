"""Further modalities of a processor: what codes their values, kept in the folder `modalities/`.

A modality comes from a plugin. Its files are read when it is first needed, and its class is asked
of the installed plugins, so no checkpoint can name code that the user has not installed.
"""

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from .checkpoint import read_json
from .layout import MODALITIES, TokenLayout
from .sequence import SequenceEncoder

MODALITIES_FOLDER = "modalities"
RECORD_FILE = "modality.json"
_PARTS = ("name", "plugin", "num_codes", "grid", "encode", "decode", "save_pretrained")


class FurtherModalities:
    """The part of `UniDiffProcessor` that holds modalities besides the four fixed ones."""

    layout: TokenLayout
    _encoder: SequenceEncoder | None
    _modalities: dict[str, Any]
    _modality_source: tuple[str, dict[str, Any]] | None

    def modality(self, name: str) -> Any:
        """The `unidiff.plugins.Modality` of that name, loaded on first use.

        Raises:
            ValueError: if the layout has none, or neither a folder nor the user gave it.
            ImportError: if the plugin that brings it is not installed or cannot be loaded.
        """
        if name not in self._modalities:
            self.layout.range_of(name)
            if self._modality_source is None:
                raise ValueError(
                    f"this processor has ids of {name!r} but nothing that codes it: call "
                    "processor.add_modality(...) with it"
                )
            source, options = self._modality_source
            self.add_modality(load_modality(name, source, **options))
        return self._modalities[name]

    def add_modality(self, modality: Any) -> None:
        """Let messages hold a new kind of value; its ids follow the last one of the layout.

        A model needs rows for them: `unidiff.model.growth.grow_vocabulary(model, layout)`. Where
        the layout has ids of this name already, the modality is what codes them from now on.

        Args:
            modality: a `unidiff.plugins.Modality`.

        Raises:
            TypeError: if it lacks a part of that protocol.
            ValueError: if its name is taken by a fixed modality, or the layout's ids of that name
                are of another number or grid.
        """
        missing = [part for part in _PARTS if not hasattr(modality, part)]
        if missing:
            raise TypeError(f"{modality!r} is no unidiff.plugins.Modality: it lacks {missing}")
        if isinstance(modality, type):
            raise TypeError(f"add_modality takes an object, got the class {modality.__name__}")
        name, size, grid = modality.name, modality.num_codes, modality.grid
        if name in MODALITIES or name not in self.layout.modalities:
            self.layout = self.layout.extended(name, size, grid)
            self._encoder = None
        held, held_grid = self.layout.range_of(name).size, self.layout.grid_of(name)
        if (held, held_grid) != (size, None if grid is None else tuple(grid)):
            raise ValueError(
                f"the layout's {name!r} has {held} codes in a grid {held_grid}, this modality "
                f"{size} in {grid}: they belong to different checkpoints"
            )
        self._modalities[name] = modality

    def save_modalities(self, folder: Path) -> list[str]:
        """Write every further modality into `folder/modalities/`; returns the files' paths."""
        files = []
        for name in self.layout.modalities[len(MODALITIES) :]:
            own = folder / MODALITIES_FOLDER / name
            if self._copied(name, own):
                continue
            modality = self.modality(name)
            own.mkdir(parents=True, exist_ok=True)
            modality.save_pretrained(own)
            record = {"name": name, "plugin": modality.plugin}
            (own / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")
        kept = folder / MODALITIES_FOLDER
        files += [str(path) for path in sorted(kept.rglob("*")) if path.is_file()]
        return files

    def _copied(self, name: str, own: Path) -> bool:
        """Copy the files of a modality that was never needed, whose plugin may be missing."""
        if name in self._modalities or self._modality_source is None:
            return False
        source, options = self._modality_source
        there = Path(source, options.get("subfolder", ""), MODALITIES_FOLDER, name)
        if not there.is_dir():
            return False
        if there.resolve() != own.resolve():
            shutil.copytree(there, own, dirs_exist_ok=True)
        return True


def load_modality(name: str, source: str, subfolder: str = "", **options: Any) -> Any:
    """The modality in a checkpoint's sub-folder.

    Args:
        name: of the modality.
        source: folder or repository of the checkpoint.
        subfolder: of the checkpoint in it.
        options: for the download from a hub.

    Raises:
        FileNotFoundError: if its folder is missing.
        ValueError: if its record is damaged or of another modality.
        ImportError: if the plugin that brings it is not installed or cannot be loaded.
    """
    place = Path(subfolder, MODALITIES_FOLDER, name)
    if not Path(source).is_dir():
        from huggingface_hub import snapshot_download

        pattern = f"{place.as_posix()}/*"
        source = snapshot_download(source, allow_patterns=[pattern], **options)
    record = Path(source) / place / RECORD_FILE
    if not record.is_file():
        raise FileNotFoundError(f"{record} is missing: the checkpoint has ids of {name!r} without")
    values = read_json(record)
    if values.get("name") != name or not isinstance(values.get("plugin"), str):
        raise ValueError(f"{record} must name the modality {name!r} and its plugin, got {values}")
    # Plugins stand above this room: they are asked by name, and only here.
    registry = import_module("unidiff.plugins.registry")
    return registry.find_modality(name, values["plugin"]).from_pretrained(record.parent)
