"""The policy as lerobot trains, saves, loads and runs it.

Chunks are planned by `unidiff_vla.policy.MaskedDiffusionPolicy`; here is what lerobot wants around
it: batches of tensors, a queue of actions for all environments at once, one weights file.
"""

# Shapes: B batch, T timesteps, R leftover timesteps, D dimensions.

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn
from unidiff_vla.policy import MaskedDiffusionPolicy, PolicySettings

from unidiff.cli import samplers
from unidiff.diffusion.random import hash_integers, row_seeds
from unidiff.training.bundled import bundled_objective

from .batches import ACTION, IS_PAD, ChunkRows, observations_of
from .configuration_unidiff import UniDiffVLAConfig
from .parts import Statistics, parts_of


class UniDiffVLAPolicy(PreTrainedPolicy):
    """A UniDiff checkpoint under lerobot.

    Attributes:
        model: what is trained.
        driver: plans with the model; `driver.save_pretrained(folder)` writes a UniDiff checkpoint.
        num_batches: () int64, batches trained on so far: it decides their noise, and is saved with
            the weights, so that a resumed run sees what it would have seen.
    """

    config_class: ClassVar[type] = UniDiffVLAConfig
    name: ClassVar[str] = "unidiff"

    def __init__(
        self, config: UniDiffVLAConfig, dataset_stats: Statistics | None = None, **kwargs: Any
    ) -> None:
        """Policy for the features of a configuration.

        Args:
            config: options and features.
            dataset_stats: the data set's, by feature; None where there is none.
            kwargs: what else lerobot passes, such as `dataset_meta`; not read.

        Raises:
            FileNotFoundError, ValueError: as `parts.parts_of`.
        """
        del kwargs
        super().__init__(config)
        config.validate_features()
        self._parts = parts_of(config, dataset_stats)
        self.model = self._parts.model
        self.driver = MaskedDiffusionPolicy(self.model, self._parts.processor, _settings(config))
        self._rows = ChunkRows(self._parts.processor, self.driver.encoder)
        self._objective = bundled_objective(config.seed)
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))
        self.reset()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: Any = None, **kwargs: Any
    ) -> Self:
        """Policy of a folder that lerobot saved.

        Args:
            pretrained_name_or_path: of the folder.
            config: of the policy; None: the folder's.
            kwargs: see `PreTrainedPolicy.from_pretrained`.

        Raises:
            FileNotFoundError: if it is no such folder.
            ValueError: if an option does not fit the saved policy.
        """
        folder = Path(pretrained_name_or_path)
        if config is None:
            config = PreTrainedConfig.from_pretrained(folder)
        config.pretrained_path = folder
        policy: Self = super().from_pretrained(folder, config=config, **kwargs)
        return policy

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write configuration and weights as lerobot does, and beside them the other parts."""
        super()._save_pretrained(save_directory)
        self._parts.save(Path(save_directory))

    def get_optim_params(self) -> Iterable[nn.Parameter]:
        """All weights of the model; the image tokenizer is not trained."""
        return self.model.parameters()

    def reset(self) -> None:
        """Begin episodes: forget queued actions."""
        self._queue: deque[Tensor] = deque()
        self._num_plans = 0

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Block-diffusion loss of a batch's chunks, in nats per action token, and its number.

        Args:
            batch: see `batches.observations_of`; `action` (B, T, D), `action_is_pad` (B, T).

        Raises:
            ValueError: if the batch does not fit the policy.
        """
        chunks = batch[ACTION].detach().float().cpu().numpy()
        is_pad = batch.get(IS_PAD)
        is_pad = np.zeros(chunks.shape[:2], bool) if is_pad is None else is_pad.cpu().numpy()
        count, index = int(self.num_batches), batch.get("index", torch.arange(len(chunks)))
        keys = hash_integers(self.config.seed, count, index.reshape(-1).cpu().long()).tolist()
        observations = observations_of(batch, self.config)
        rows = self._rows(observations, chunks, is_pad, keys, count * len(chunks))
        if self.training:
            self.num_batches += 1
        device = self.model.device
        rows = {name: value.to(device) for name, value in rows.items()}
        loss, _ = self._objective(self.model, rows, self.model.config)
        return loss, {"nats_per_action_token": loss.item()}

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Any],
        *,
        inference_delay: int = 0,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
    ) -> Tensor:
        """(B, T, D) actions in the data set's units, finite and inside the action bins.

        Args:
            batch: see `batches.observations_of`.
            inference_delay: leading timesteps of the leftover that come back as they are.
            prev_chunk_left_over: (B, R, D), or (R, D) for one row, actions of the previous chunk
                that are not executed yet; None: none.
            execution_horizon: of lerobot's real-time chunking by guidance; not read, because
                here a chunk's prefix is pinned.

        Raises:
            ValueError: if the batch or the leftover does not fit the policy.
        """
        del execution_horizon
        observations = observations_of(batch, self.config)
        leftover = None
        if prev_chunk_left_over is not None:
            leftover = prev_chunk_left_over.detach().cpu().numpy()
            leftover = leftover[None] if leftover.ndim == 2 else leftover
        key = int(hash_integers(self.config.seed, self._num_plans))
        self._num_plans += 1
        chunks = self.driver.predict_action_chunk(
            observations,
            seed=row_seeds(key, len(observations)).tolist(),
            leftover=leftover,
            inference_delay=inference_delay,
        )
        return torch.from_numpy(chunks).to(self.model.device)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any]) -> Tensor:
        """(B, D) next action of each environment; plans for all where none is left."""
        if not self._queue:
            chunks = self.predict_action_chunk(batch)
            self._queue.extend(chunks[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()


def _settings(config: UniDiffVLAConfig) -> PolicySettings:
    """Settings of the planner: what the prompt shows, and how a chunk is decoded."""
    decoding = samplers.acting()
    if config.max_denoising_steps is not None:
        decoding["max_denoising_steps"] = config.max_denoising_steps
    sizes = list(config.cameras.values())
    return PolicySettings(
        decoding=decoding,
        replan_every=config.n_action_steps,
        cameras=tuple(config.cameras) if len(sizes) > 1 else None,
        image_size=sizes[0],
        seed=config.seed,
    )
