"""What every policy shares: checked observations, the queue of actions, ensembling, the folder.

A policy plans chunks of (T, D) actions. `predict_action_chunk` depends on its arguments alone.
`select_action` remembers the episode: the queue of actions, what the last chunk has left, the
ensemble's averages. How a chunk is planned is the subclasses'.
"""

# Shapes: B observations, T timesteps, R leftover timesteps, D dimensions.

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from unidiff.diffusion.random import hash_integers, row_seeds
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor

from .ensembling import TemporalEnsemble
from .fit import check_has_state_bins
from .observations import Observation, ObservationEncoder, as_observations
from .pins import Pins, leftover_pins, no_pins
from .records import ChunkRecord
from .safety import safe_actions
from .settings import DRAFT, PolicySettings


@dataclass
class Episode:
    """What `select_action` remembers since the last `reset`.

    Attributes:
        seed: of its plans.
        ensemble: averages of the actions to come, or None.
        queue: actions to execute.
        num_plans: chunks planned.
        last: the newest of them.
        past: its prompt's cache, where that is kept.
    """

    seed: int
    ensemble: TemporalEnsemble | None
    queue: deque[np.ndarray] = field(default_factory=deque)
    num_plans: int = 0
    last: ChunkRecord | None = None
    past: Any = None


class ChunkPolicy(ABC):
    """Plans chunks of actions and hands them out one by one.

    Attributes:
        model_class: of the weights that it reads.
        model: the checkpoint.
        processor: the checkpoint's.
        settings: how it plans and executes.
        bins: the action bins.
        num_executed: timesteps executed of each chunk.
        last_record: the latest call's chunks and their cost; None before the first.
    """

    model_class: ClassVar[type[UniDiffForBlockDiffusion]] = UniDiffForBlockDiffusion

    def __init__(self, model: Any, processor: Any, settings: PolicySettings | None = None) -> None:
        """Policy of a loaded checkpoint.

        Args:
            model: of `model_class`.
            processor: with action bins that have a horizon.
            settings: None: the defaults.

        Raises:
            ValueError: if the checkpoint has no actions, lacks the range of its states, or settings
                and checkpoint do not fit.
        """
        self.model = model
        self.processor = processor
        self.settings = PolicySettings() if settings is None else settings
        self.bins = processor.bins_of("action")
        check_has_state_bins(processor)
        self.num_executed = self.settings.executed(self.horizon)
        self.encoder = ObservationEncoder(processor, self.settings)
        self.last_record: ChunkRecord | None = None
        self.reset()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        settings: PolicySettings | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
    ) -> Self:
        """Policy of a checkpoint's folder; nothing outside it is read.

        Args:
            folder: of model and processor, and `policy.json` where it was saved.
            settings: None: those saved in the folder, else the defaults.
            device: where the model runs.
            dtype: of the weights; None: float32 on a CPU, the checkpoint's own elsewhere.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: as the constructor, or if the folder holds weights of another kind.
        """
        folder = Path(folder)
        if dtype is None:
            dtype = torch.float32 if torch.device(device).type == "cpu" else "auto"
        kind, wanted = kind_of_weights(folder), cls.model_class.__name__
        if kind != wanted:
            raise ValueError(
                f"{folder} holds the weights of {kind}, {cls.__name__} reads those of {wanted}: "
                "load_policy(folder) takes the right class"
            )
        processor = UniDiffProcessor.from_pretrained(folder)
        model: Any = cls.model_class.from_pretrained(folder, dtype=dtype)
        settings = PolicySettings.load(folder) if settings is None else settings
        return cls(model.to(device).eval(), processor, settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, processor and settings, all that `from_pretrained` needs."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        self.settings.save(folder)

    @property
    def horizon(self) -> int:
        """Timesteps of a chunk."""
        return int(self.bins.horizon)

    @property
    def dof(self) -> int:
        """Dimensions of an action."""
        return int(self.bins.dim)

    @property
    def num_plans(self) -> int:
        """Chunks that `select_action` has planned since `reset`."""
        return self._episode.num_plans

    def predict_action_chunk(
        self,
        observations: Observation | Sequence[Observation],
        *,
        seed: Any = None,
        leftover: Any = None,
        inference_delay: int = 0,
        is_draft: bool = False,
        **options: Any,
    ) -> np.ndarray:
        """One chunk for each observation.

        Args:
            observations: one or B; see `observations.ObservationEncoder`.
            seed: a number, expanded to one key per row; or the rows' keys. None: the settings'.
            leftover: (R, D) actions of the previous chunk that are not executed yet, for one
                observation; (B, R, D), or B arrays, for several.
            inference_delay: leading timesteps of the leftover that come back as they are, bit for
                bit, while the rest is denoised to fit them (real-time chunking).
            is_draft: whether the other timesteps of the leftover are shown as a draft, of which
                secondary remasking (`revision="secondary"`) gives back what the model doubts.
            options: keywords of `generate()` over the settings' own.

        Returns:
            (B, horizon, dof) float32, always finite and inside the action bins.

        Raises:
            ValueError: if an observation, the leftover or an option does not fit.
            TypeError: if something is of the wrong type.

        Source: real-time chunking, arXiv 2506.07339, in its form for masked diffusion: what is
            executed meanwhile is known, so it is infilling.
        """
        rows = as_observations(observations)
        several = leftover if isinstance(observations, Sequence) else [leftover]
        pins = self._pins(
            None if leftover is None else several, inference_delay, len(rows), is_draft
        )
        seed = self.settings.seed if seed is None else seed
        keys = row_seeds(int(seed), len(rows)).tolist() if np.ndim(seed) == 0 else list(seed)
        return self._plan(rows, pins, keys, options)[0].chunks.copy()

    def select_action(self, observation: Observation) -> np.ndarray:
        """(dof,) float32, the next action of the episode; plans where none is left.

        Only the observation at hand when a chunk is planned is read.

        Raises:
            ValueError: if the observation that is planned for does not fit.
        """
        episode = self._episode
        if not episode.queue:
            chunk = self._next_chunk(observation)
            episode.queue.extend(chunk[: self.num_executed])
        return episode.queue.popleft().copy()

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode: forget queue, leftover, averages and cache.

        Args:
            seed: of the episode's plans; None: the settings'. The n-th plan has the key
                hash(seed, n), so the same observations give the same actions bit for bit.
        """
        decay = self.settings.ensemble_decay
        self._episode = Episode(
            seed=self.settings.seed if seed is None else seed,
            ensemble=None if decay is None else TemporalEnsemble(decay),
        )

    def _pins(
        self, leftover: Any, inference_delay: int, num_rows: int, is_draft: bool
    ) -> list[Pins]:
        """Pins of each row, from what each of its previous chunks has left; None for none."""
        if leftover is None and inference_delay:
            raise ValueError(f"{inference_delay=} needs the leftover whose timesteps it pins")
        if leftover is None and is_draft:
            raise ValueError("is_draft needs the leftover that is the draft")
        if leftover is None:
            return [no_pins((self.horizon, self.dof))] * num_rows
        if len(leftover) != num_rows:
            raise ValueError(
                f"leftover must have one (R, {self.dof}) array for each of {num_rows} "
                f"observations; got {len(leftover)}"
            )
        return [
            leftover_pins(one, inference_delay, self.bins, is_draft=is_draft) for one in leftover
        ]

    def _next_chunk(self, observation: Observation) -> np.ndarray:
        """(T, D) float32 actions from now on, as the settings want them executed."""
        episode = self._episode
        key = int(hash_integers(episode.seed, episode.num_plans))
        rows = as_observations(observation)
        record, past = self._plan(rows, [self._kept()], [key], {}, uses_past=True)
        episode.last, episode.past = record, past
        episode.num_plans += 1
        chunk = record.chunks[0]
        if episode.ensemble is None:
            return chunk
        if episode.num_plans > 1:
            episode.ensemble.advance(self.num_executed)
        return safe_actions(episode.ensemble.update(chunk), self.bins)

    def _kept(self) -> Pins:
        """What the next plan takes over from the last one."""
        last = self._episode.last
        delay, start = self.settings.inference_delay, self.settings.warm_start
        if last is None or (not delay and start is None):
            return no_pins((self.horizon, self.dof))
        is_draft = start == DRAFT
        is_sure = None
        if start is not None and not is_draft:
            is_sure = last.confidence[0, self.num_executed :] >= start
        left = last.chunks[0, self.num_executed :]
        return leftover_pins(left, delay, self.bins, is_sure, is_draft=is_draft)

    @abstractmethod
    def _plan(
        self,
        observations: Sequence[Observation],
        pins: Sequence[Pins],
        keys: Sequence[int],
        options: dict[str, Any],
        *,
        uses_past: bool = False,
    ) -> tuple[ChunkRecord, Any]:
        """Chunks of B observations, and the cache of their prompts where it is to be kept.

        Args:
            observations: B of them, not yet checked.
            pins: what is known of each chunk.
            keys: of each row's random numbers.
            options: of this call, over the settings' own.
            uses_past: whether the episode's cache may be read.
        """


def kind_of_weights(folder: Path) -> str:
    """Class of the weights in a checkpoint's folder, as its `config.json` says.

    Raises:
        FileNotFoundError: if there is no `config.json`.
        ValueError: if it is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: config.json is missing")
    try:
        names = json.loads(path.read_text(encoding="utf-8")).get("architectures")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): save it again") from error
    return str(names[0]) if names else UniDiffForBlockDiffusion.__name__
