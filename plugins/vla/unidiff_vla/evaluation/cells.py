"""Parts of an evaluation that are driven once: a task, a wording, a seed, a way to decode.

Each finished one is a file, so that an evaluation can be interrupted and goes on where it stopped.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from unidiff_vla.driving import EpisodeRecord


def layouts_of(seed: int, num_episodes: int) -> range:
    """Layouts of an evaluation seed; those of two seeds are different ones."""
    return range(seed * num_episodes, (seed + 1) * num_episodes)


@dataclass(frozen=True)
class Cell:
    """What decides the episodes of one part, and nothing else.

    Attributes:
        env: name of the environment.
        wording: see `WORDINGS`.
        seed: of the evaluation; it decides layouts and plans.
        num_episodes: layouts.
        split: of the layouts.
        fingerprint: of the weights.
        settings: how the policy plans and executes.
    """

    env: str
    wording: str
    seed: int
    num_episodes: int
    split: str
    fingerprint: str
    settings: Mapping[str, Any]

    @property
    def layout_seeds(self) -> range:
        """Seeds of the layouts."""
        return layouts_of(self.seed, self.num_episodes)

    @property
    def key(self) -> str:
        """Name of its file."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        name = self.env.replace("/", "_").replace(":", "_")
        return f"{name}-{self.wording}-{blake2b(text.encode(), digest_size=6).hexdigest()}"


class CellFolder:
    """Finished cells as files of a folder.

    Args:
        folder: made when something is first kept; None: nothing is.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, cell: Cell) -> list[EpisodeRecord] | None:
        """A cell's episodes; None where it was not finished.

        Raises:
            ValueError: if its file is damaged.
        """
        path = None if self.folder is None else self.folder / f"{cell.key}.json"
        if path is None or not path.is_file():
            return None
        try:
            episodes = json.loads(path.read_text(encoding="utf-8"))["episodes"]
            return [EpisodeRecord(**one) for one in episodes]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it") from error

    def put(self, cell: Cell, episodes: Sequence[EpisodeRecord]) -> None:
        """Keep a cell whose episodes all ended; one that broke off is driven again next time."""
        if self.folder is None or any(one.error for one in episodes):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {**asdict(cell), "episodes": [one.to_dict() for one in episodes]}
        path = self.folder / f"{cell.key}.json"
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(facts, default=str), encoding="utf-8")
        draft.replace(path)
