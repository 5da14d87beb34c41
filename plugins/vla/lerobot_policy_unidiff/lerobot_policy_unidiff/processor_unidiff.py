"""lerobot's pipelines before and after the policy: names, batch dimension, device, nothing more.

UniDiff's own processor codes pictures, states and actions inside the policy. The steps that
normalise are there because lerobot sets them when training goes on; with IDENTITY they do nothing.
"""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import (
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)

from .configuration_unidiff import UniDiffVLAConfig


def make_unidiff_pre_post_processors(
    config: UniDiffVLAConfig, dataset_stats: Any = None, **kwargs: Any
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """(before, after) the policy; the name is lerobot's contract.

    Args:
        config: features and device.
        dataset_stats: carried along, not used.
        kwargs: what other versions of lerobot pass besides.
    """
    del kwargs
    features = {**(config.input_features or {}), **(config.output_features or {})}
    before = PolicyProcessorPipeline(
        steps=[
            RenameObservationsProcessorStep(rename_map={}),
            AddBatchDimensionProcessorStep(),
            DeviceProcessorStep(device=config.device),
            NormalizerProcessorStep(
                features=features, norm_map=config.normalization_mapping, stats=dataset_stats
            ),
        ],
        name=POLICY_PREPROCESSOR_DEFAULT_NAME,
    )
    after = PolicyProcessorPipeline(
        steps=[
            UnnormalizerProcessorStep(
                features=config.output_features or {},
                norm_map=config.normalization_mapping,
                stats=dataset_stats,
            ),
            DeviceProcessorStep(device="cpu"),
        ],
        name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return before, after
