"""Options of the policy on lerobot's command line, `--policy.type=unidiff --policy.NAME=VALUE`."""

import logging
from dataclasses import dataclass, field

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode
from lerobot.optim.optimizers import AdamWConfig

logger = logging.getLogger(__name__)

# Statistics of lerobot at the ends of a bin tokenizer's range.
RANGES = {"q01_q99": ("q01", "q99"), "min_max": ("min", "max")}


def _unchanged() -> dict[str, NormalizationMode]:
    """No normalisation by lerobot: UniDiff's bins normalise, and are saved with their ranges."""
    return dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.IDENTITY)


@PreTrainedConfig.register_subclass("unidiff")
@dataclass
class UniDiffVLAConfig(PreTrainedConfig):
    """How a UniDiff checkpoint becomes a policy of lerobot.

    Attributes:
        checkpoint: folder of a UniDiff checkpoint, which must fit chunk size, dimensions and
            cameras; None: the bundled one's weights, laid out for the data set's features.
        chunk_size: timesteps of a planned chunk.
        n_action_steps: timesteps executed of each chunk.
        image_size: pixels per side that pictures are fitted into (shrunk, aspect ratio kept, then
            padded); None: the cameras' own size, of which all must have the same.
        bin_statistics: "q01_q99" or "min_max": what bins are fitted to, where the checkpoint's own
            do not suit the data set.
        instruction: what is asked for where data set or environment say nothing.
        max_denoising_steps: most steps of a chunk; None: as UniDiff's own suite decodes.
        seed: of the noise in training and of the plans.
        optimizer_lr: rate of AdamW.
        optimizer_weight_decay: weight decay of AdamW.
        optimizer_grad_clip_norm: largest norm of a step's gradient.
        normalization_mapping: what lerobot normalises: nothing.
        push_to_hub: whether lerobot-train uploads the policy at the end.
    """

    checkpoint: str | None = None
    chunk_size: int = 8
    n_action_steps: int = 8
    image_size: int | None = None
    bin_statistics: str = "q01_q99"
    instruction: str = ""
    max_denoising_steps: int | None = None
    seed: int = 0
    optimizer_lr: float = 3e-4
    optimizer_weight_decay: float = 0.01
    optimizer_grad_clip_norm: float = 1.0
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_unchanged)
    push_to_hub: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked before the features are known."""
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps must lie in [1, chunk_size]; got {self.n_action_steps=} "
                f"{self.chunk_size=}: a chunk holds no further actions"
            )
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps must be 1, the present; got {self.n_obs_steps}")
        if self.bin_statistics not in RANGES:
            raise ValueError(
                f"bin_statistics must be one of {tuple(RANGES)}; got {self.bin_statistics!r}"
            )
        if set(self.normalization_mapping.values()) != {NormalizationMode.IDENTITY}:
            raise ValueError(
                "normalization_mapping must be IDENTITY throughout: UniDiff's bins normalise; got "
                f"{self.normalization_mapping}"
            )

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW with the rates of the options."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> None:
        """No schedule: the rate is constant."""
        return

    def validate_features(self) -> None:
        """Raise ValueError without a camera or an action; warn about an input that is not read."""
        if not self.image_features:
            raise ValueError(
                "the policy needs a camera, `observation.image` or `observation.images.<name>`; "
                f"the inputs are {sorted(self.input_features or {})}: record pictures, or name "
                "them so with --rename_map"
            )
        if self.action_feature is None:
            raise ValueError(
                f"the policy needs `action`; the outputs are {sorted(self.output_features or {})}"
            )
        if self.env_state_feature is not None:
            logger.warning("the environment's own state is among the inputs; it is not read")

    @property
    def cameras(self) -> dict[str, tuple[int, int]]:
        """(height, width) in pixels of each camera, by feature, in the order of the prompt."""
        sizes = {}
        for name, feature in self.image_features.items():
            if feature.type is not FeatureType.VISUAL or len(feature.shape) != 3:
                raise ValueError(f"{name} must be a picture (3, h, w); got {feature.shape}")
            sizes[name] = (int(feature.shape[1]), int(feature.shape[2]))
        return sizes

    @property
    def state_dim(self) -> int | None:
        """Dimensions of `observation.state`; None without one."""
        feature = self.robot_state_feature
        return None if feature is None else int(feature.shape[0])

    @property
    def action_dim(self) -> int:
        """Dimensions of `action`."""
        return int(self.action_feature.shape[0])

    @property
    def observation_delta_indices(self) -> None:
        """Only the present observation is read."""
        return

    @property
    def action_delta_indices(self) -> list[int]:
        """The timesteps of a chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """No reward is read."""
        return
