# SPDX-License-Identifier: Apache-2.0
"""What LeRobot does to observations and actions of such a policy: nothing but batches; it has its own units."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME

from lerobot_policy_so101.configuration_so101 import SO101Config


def make_so101_pre_post_processors(
    config: SO101Config, dataset_stats: Any = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """Return the two pipelines; LeRobot finds this function by its name."""
    before = PolicyProcessorPipeline[Any, Any](
        steps=[
            RenameObservationsProcessorStep(rename_map={}),
            AddBatchDimensionProcessorStep(),
            DeviceProcessorStep(device=config.device),
        ],
        name=POLICY_PREPROCESSOR_DEFAULT_NAME,
    )
    after = PolicyProcessorPipeline[PolicyAction, PolicyAction](
        steps=[DeviceProcessorStep(device='cpu')],
        name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return before, after
