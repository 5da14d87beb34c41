"""A UniDiff checkpoint as a robot policy: chunks for observations, and actions one by one.

    policy = MaskedDiffusionPolicy.from_pretrained(folder)
    chunk = policy.predict_action_chunk(observation)          # (1, horizon, dof)
    policy.reset()
    while not done:
        action = policy.select_action(observation)            # (dof,)

`predict_action_chunk` depends on its arguments alone. `select_action` remembers the episode: the
queue of actions, what the last chunk has left, the ensemble's averages.

The prompt is `<|bos|><|user|>`, the picture, the state, the instruction. Its order is the
checkpoint's, and under causal attention only what stands before the first changed token keeps its
keys: two tokens and the codes of the picture down to the first change. The instruction stands
behind the picture, so its keys change with it, although its words do not (`reuses_prompt`).
"""

# Shapes: B observations, T timesteps, R leftover timesteps, D dimensions, K = T * D canvas.

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unidiff.diffusion.random import hash_integers, row_seeds
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.plugins.answers import check_fits
from unidiff.tokens.processor import UniDiffProcessor

from .ensembling import TemporalEnsemble
from .observations import Observation, ObservationEncoder, as_observations
from .pins import Pins, leftover_pins, no_pins, pin, steps_of
from .records import ChunkRecord, confidence_of, num_shared
from .safety import safe_actions
from .settings import PolicySettings, check_decoding


@dataclass
class _Episode:
    """What `select_action` remembers since the last `reset`."""

    seed: int
    ensemble: TemporalEnsemble | None
    queue: deque[np.ndarray] = field(default_factory=deque)
    num_plans: int = 0
    last: ChunkRecord | None = None
    past: Any = None


class MaskedDiffusionPolicy:
    """Plans chunks of actions by masked diffusion over action tokens.

    Attributes:
        model: the checkpoint.
        processor: the checkpoint's.
        settings: how it plans and executes.
        last_record: the latest call's chunks and their cost; None before the first.
    """

    def __init__(self, model: Any, processor: Any, settings: PolicySettings | None = None) -> None:
        """Policy of a loaded checkpoint.

        Args:
            model: `UniDiffForBlockDiffusion`.
            processor: with action bins that have a horizon.
            settings: None: the defaults.

        Raises:
            ValueError: if the checkpoint has no actions, or settings and checkpoint do not fit.
        """
        self.model = model
        self.processor = processor
        self.settings = PolicySettings() if settings is None else settings
        self.bins = processor.bins_of("action")
        self.num_executed = self.settings.executed(self.horizon)
        self.encoder = ObservationEncoder(processor, self.settings)
        model.decoding_session(**self.settings.decoding)  # raises where an option does not fit
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
    ) -> "MaskedDiffusionPolicy":
        """Policy of a checkpoint's folder; nothing outside it is read.

        Args:
            folder: of model and processor, and `policy.json` where it was saved.
            settings: None: those saved in the folder, else the defaults.
            device: where the model runs.
            dtype: of the weights; None: float32 on a CPU, the checkpoint's own elsewhere.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: as the constructor.
        """
        folder = Path(folder)
        if dtype is None:
            dtype = torch.float32 if torch.device(device).type == "cpu" else "auto"
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is no checkpoint: config.json is missing")
        processor = UniDiffProcessor.from_pretrained(folder)
        model: Any = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=dtype)
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
        pins = self._pins(None if leftover is None else several, inference_delay, len(rows))
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
        self._episode = _Episode(
            seed=self.settings.seed if seed is None else seed,
            ensemble=None if decay is None else TemporalEnsemble(decay),
        )

    def _pins(self, leftover: Any, inference_delay: int, num_rows: int) -> list[Pins]:
        """Pins of each row, from what each of its previous chunks has left; None for none."""
        if leftover is None and inference_delay:
            raise ValueError(f"{inference_delay=} needs the leftover whose timesteps it pins")
        if leftover is None:
            return [no_pins((self.horizon, self.dof))] * num_rows
        if len(leftover) != num_rows:
            raise ValueError(
                f"leftover must have one (R, {self.dof}) array for each of {num_rows} "
                f"observations; got {len(leftover)}"
            )
        return [leftover_pins(one, inference_delay, self.bins) for one in leftover]

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
        delay, least = self.settings.inference_delay, self.settings.warm_start
        if last is None or (not delay and least is None):
            return no_pins((self.horizon, self.dof))
        is_sure = None if least is None else last.confidence[0, self.num_executed :] >= least
        return leftover_pins(last.chunks[0, self.num_executed :], delay, self.bins, is_sure)

    @torch.inference_mode()
    def _plan(
        self,
        observations: Sequence[Observation],
        pins: Sequence[Pins],
        keys: Sequence[int],
        options: dict[str, Any],
        *,
        uses_past: bool = False,
    ) -> tuple[ChunkRecord, Any]:
        """Chunks of B observations, and the cache of their prompts where it is to be kept."""
        start = time.perf_counter()
        check_decoding(options)
        inputs = self.encoder(observations)
        check_fits(self.model, inputs)
        pin(inputs, pins, self.processor)
        given = {**self.settings.decoding, **options}
        steps = given.get("max_denoising_steps", self.model.generation_config.max_denoising_steps)
        if any(one.is_pinned_TD.any() for one in pins):
            given["max_denoising_steps"] = steps_of(steps, pins)
        keeps_past = uses_past and self.settings.reuses_prompt
        output = self.model.generate(
            **inputs.to(self.model.device),
            **given,
            **self._weaker(given),
            past_key_values=self._episode.past if keeps_past else None,
            seed=list(keys),
            use_cache=keeps_past,
            return_trace=True,
            return_dict_in_generate=True,
        )
        is_pinned = np.stack([one.is_pinned_TD for one in pins])
        decoded = safe_actions(np.stack(self.processor.post_process(output, inputs)), self.bins)
        chunks = np.where(is_pinned, np.stack([one.values_TD for one in pins]), decoded)
        past = output.past_key_values if keeps_past else None
        old_ids = self._episode.past.token_ids[0] if past and self._episode.past else []
        self.last_record = ChunkRecord(
            chunks=chunks,
            confidence=confidence_of(output.trace, (self.horizon, self.dof)),
            is_pinned=is_pinned,
            num_forwards=tuple(output.num_forwards.tolist()),
            seeds=tuple(output.row_seeds.tolist()),
            traces=tuple(output.trace),
            num_prompt_tokens=tuple(inputs["attention_mask"].sum(1).tolist()),
            num_reused_tokens=num_shared(old_ids, past.token_ids[0] if past else []),
            seconds=time.perf_counter() - start,
        )
        return self.last_record, past

    def _weaker(self, options: dict[str, Any]) -> dict[str, Any]:
        """The prompt with a dropped condition, where guidance wants one."""
        if options.get("guidance_scale", 1.0) == 1.0:
            return {}
        dropped = self.processor.for_dropped_condition("action").to(self.model.device)
        return {f"negative_{name}": dropped[name] for name in ("input_ids", "attention_mask")}
