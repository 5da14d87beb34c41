"""A run carried to another machine: weights, step and log of a checkpoint, without optimizer state.

A full checkpoint resumes step for step but is three times as large. A carried run continues with
the same weights at the same place in the data; the optimizer starts anew, so the rate is warmed up
again.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "carried.json"
LOG_FILE = "training_log.json"


@dataclass(frozen=True)
class CarriedRun:
    """Where a run stood.

    Attributes:
        steps: optimiser steps done, over all its parts.
        history: the Trainer's log lines of all parts, with steps counted from the very start.
    """

    steps: int = 0
    history: tuple[dict[str, Any], ...] = ()

    def extended(self, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """This run's log followed by that of a part that started here."""
        shifted = [{**line, "step": line["step"] + self.steps} for line in history]
        return [*self.history, *shifted]


def carry(checkpoint: Path, folder: Path) -> CarriedRun:
    """Write what continues a run from one of its checkpoints; returns where it stands.

    Args:
        checkpoint: a checkpoint folder of the Trainer, inside the run's folder.
        folder: written under a temporary name, then renamed; replaced if it exists.

    Raises:
        FileNotFoundError: if the checkpoint lacks its weights or its state.
    """
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    start = start_of(Path(checkpoint).parent)
    run = CarriedRun(
        steps=start.steps + state["global_step"],
        history=tuple(start.extended(state["log_history"])),
    )
    temporary = Path(folder).with_name(Path(folder).name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    shutil.copyfile(Path(checkpoint) / WEIGHTS_FILE, temporary / WEIGHTS_FILE)
    note_start(run, temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return run


def note_start(run: CarriedRun, folder: Path) -> None:
    """Write where a run stands into a folder: a carried one, or that of the run that goes on."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"steps": run.steps, "history": list(run.history)}
    (Path(folder) / STATE_FILE).write_text(json.dumps(content, indent=0) + "\n")


def start_of(run_dir: Path) -> CarriedRun:
    """Where the run in a folder had started; fresh if it was not carried."""
    return read_carried(Path(run_dir) if (Path(run_dir) / STATE_FILE).exists() else None)


def read_carried(folder: Path | None) -> CarriedRun:
    """Where a carried run or a finished checkpoint stands; a fresh start for None."""
    if folder is None:
        return CarriedRun()
    path, log = Path(folder) / STATE_FILE, Path(folder) / LOG_FILE
    if path.exists():
        content = json.loads(path.read_text())
        return CarriedRun(content["steps"], tuple(content["history"]))
    if log.exists():  # a finished checkpoint
        content = json.loads(log.read_text())
        return CarriedRun(content["step"], tuple(content["history"]))
    raise FileNotFoundError(
        f"{path} is missing: {folder} is neither a carried run nor a finished checkpoint"
    )


def load_carried_weights(model: nn.Module, folder: Path) -> None:
    """Overwrite a model's weights with the carried ones.

    Raises:
        ValueError: if they are those of another architecture.
    """
    weights = load_file(Path(folder) / WEIGHTS_FILE)
    own = dict(model.named_parameters())
    if set(weights) != set(own) or any(weights[name].shape != own[name].shape for name in own):
        raise ValueError(f"{folder} holds weights of another architecture: use the same recipe")
    model.load_state_dict(weights, strict=False)
