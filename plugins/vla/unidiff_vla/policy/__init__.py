"""Driving a robot with a UniDiff checkpoint: from observations to chunks and single actions."""

from .calibration import StepCalibration, calibrate_steps
from .drawing import draw_remasking, num_reveals
from .ensembling import TemporalEnsemble
from .observations import Observation
from .policy import MaskedDiffusionPolicy
from .records import ChunkRecord
from .settings import PolicySettings

__all__ = [
    "ChunkRecord",
    "MaskedDiffusionPolicy",
    "Observation",
    "PolicySettings",
    "StepCalibration",
    "TemporalEnsemble",
    "calibrate_steps",
    "draw_remasking",
    "num_reveals",
]
