"""Demonstrations of experts, recorded into LeRobotDataset folders."""

from .demonstration import Demonstration, record_demonstration
from .leads import Lead, PolicyLead, RandomWalk
from .recorder import RecordingReport, check_resumed, features_of, record_demonstrations

__all__ = [
    "Demonstration",
    "Lead",
    "PolicyLead",
    "RandomWalk",
    "RecordingReport",
    "check_resumed",
    "features_of",
    "record_demonstration",
    "record_demonstrations",
]
