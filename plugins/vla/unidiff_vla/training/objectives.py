"""What a recipe's objective means: the rows it reads, its weights, its loss, how it is decoded.

    masked      part of a chunk is masked; decoded in several steps
    parallel    every chunk is masked whole; decoded in one step
    ar          each action token is predicted from those before it; decoded left to right
    regression  every chunk is masked whole and each action read as a number

Backbone, data and rates are the same in all.
"""

# Shapes: B rows, K canvas, N labelled positions.

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from unidiff.data.blocks import BlockOptions
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.streams import IGNORED, check_trainable, training_streams
from unidiff.training.objective import BlockObjective, ModalityLoss
from unidiff_vla.policy import ActionRegressor, PolicySettings
from unidiff_vla.policy.regression import masked_values
from unidiff_vla.policy.settings import DRAFT

from .recipe import PolicyRecipe

# Of a token of the picture to come: it has twice a chunk's tokens, and the chunk is what counts.
FUTURE_WEIGHT = 0.25
# Options of `generate()` that say how a token is drawn, not in which order.
_DRAWING = ("do_sample", "temperature", "top_k", "top_p", "greedy_choice")


@dataclass(frozen=True)
class RegressionObjective:
    """Mean squared error of the values that an `ActionRegressor` reads from masked chunks.

    A value is the centre of its token's bin, with -1 and 1 at the ends of the range. Waypoints are
    learnt as tokens, as by the other objectives.

    Attributes:
        waypoint_weight: see `PolicyRecipe`.
    """

    waypoint_weight: float

    def __call__(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        config: UniDiffConfig,
        num_response_tokens: int | Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error per response token; no parts, for they would be logged as nats.

        Args:
            model: `ActionRegressor`, possibly wrapped.
            batch: as documented in `unidiff.data.collator.BlockCollator`; action tokens are wanted.
            config: the model's.
            num_response_tokens: labels in the global batch; None counts this batch's.

        Raises:
            ValueError: as `check_trainable`.
        """
        check_trainable(config, batch)
        streams = training_streams(batch, config.grid)
        labels_BK = streams.canvas_values("labels", IGNORED)
        bins = config.layout.range_of("action")
        is_action_BK = (labels_BK >= bins.start) & (labels_BK < bins.stop)
        code_N = labels_BK[is_action_BK] - bins.start
        target_N = (2 * code_N + 1).float() / (bins.stop - bins.start) - 1
        values_N, losses = masked_values(model, streams, is_action_BK, config)
        loss = (values_N - target_N).square().sum() + self.waypoint_weight * losses.sum()
        if num_response_tokens is None:
            num_response_tokens = int(streams.can_mask_BK.sum())
        return loss / num_response_tokens, {}


def policy_objective(recipe: PolicyRecipe) -> BlockObjective | RegressionObjective:
    """The loss of the recipe's chunks."""
    if recipe.objective == "regression":
        return RegressionObjective(recipe.waypoint_weight)
    waypoints = ModalityLoss("cosine", False, recipe.waypoint_weight, full_share=1.0)
    if recipe.objective == "ar":
        return BlockObjective(
            state=waypoints, ar_weight=1.0, ar_modalities=("action",), seed=recipe.seed
        )
    is_masked = recipe.objective == "masked"
    full_share = recipe.full_share if is_masked else 1.0
    future = ModalityLoss("cosine", False, FUTURE_WEIGHT, full_share)
    return BlockObjective(
        image=future,
        state=waypoints,
        action=ModalityLoss("cosine", elbo_weights=False, full_share=full_share),
        ar_weight=0.0,
        wrong_share=recipe.wrong_share if is_masked else 0.0,
        seed=recipe.seed,
    )


def policy_blocks(objective: str) -> BlockOptions:
    """Rows with the answer as one canvas, or none where it is read left to right."""
    return BlockOptions(max_block_length=32, prob_merge=1.0, left_to_right=objective == "ar")


def policy_model(objective: str, config: UniDiffConfig) -> UniDiffForBlockDiffusion:
    """Fresh weights: the backbone, and a head of its own for `regression`."""
    kind = ActionRegressor if objective == "regression" else UniDiffForBlockDiffusion
    return kind(config)


def recommended_settings(cameras: tuple[str, ...], horizon: int) -> PolicySettings:
    """How the policies of this package plan.

    Four steps in the order of time, medians, and half of each chunk is carried out.

    Args:
        cameras: of the run.
        horizon: timesteps of a chunk.
    """
    decoding = {
        "do_sample": False,
        "max_denoising_steps": 4,
        "unmasking_strategy": "sequential",
        "greedy_choice": "median",
    }
    named = None if cameras == ("image",) else cameras
    return PolicySettings(decoding=decoding, replan_every=max(1, horizon // 2), cameras=named)


def policy_settings(objective: str, settings: PolicySettings) -> PolicySettings:
    """The settings with the decoding that the weights were trained for.

    Args:
        objective: of the recipe.
        settings: wanted ones; all but how tokens are drawn gives way where it does not apply.
    """
    if objective == "masked":
        return settings
    drawn: dict[str, Any] = {
        name: value for name, value in settings.decoding.items() if name in _DRAWING
    }
    own: dict[str, dict[str, Any]] = {
        "parallel": {**drawn, "max_denoising_steps": 1},
        "ar": {**drawn, "decoding_mode": "ar"},
        "regression": {},
    }
    start = None if settings.warm_start == DRAFT else settings.warm_start
    return replace(settings, decoding=own[objective], foresees=False, warm_start=start)
