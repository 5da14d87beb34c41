"""Driving a robot with a UniDiff checkpoint: from observations to chunks and single actions."""

from .calibration import StepCalibration, calibrate_steps
from .chunk_policy import ChunkPolicy
from .drawing import draw_remasking, num_reveals
from .ensembling import TemporalEnsemble
from .loading import load_policy
from .observations import Observation
from .policy import MaskedDiffusionPolicy
from .records import ChunkRecord
from .regression import ActionRegressor, RegressionPolicy
from .settings import PolicySettings

__all__ = [
    "ActionRegressor",
    "ChunkPolicy",
    "ChunkRecord",
    "MaskedDiffusionPolicy",
    "Observation",
    "PolicySettings",
    "RegressionPolicy",
    "StepCalibration",
    "TemporalEnsemble",
    "calibrate_steps",
    "draw_remasking",
    "load_policy",
    "num_reveals",
]
