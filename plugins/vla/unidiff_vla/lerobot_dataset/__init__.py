"""LeRobotDataset v3 folders read and written with pyarrow and Pillow; lerobot is not needed."""

from .chunks import action_chunks, fresh_frames, stream_samples
from .features import FRESH, Feature, image_feature
from .reader import Episode, LeRobotFolder
from .roles import ACTION, STATE, camera_feature, camera_features
from .writer import DatasetWriter

__all__ = [
    "ACTION",
    "FRESH",
    "STATE",
    "DatasetWriter",
    "Episode",
    "Feature",
    "LeRobotFolder",
    "action_chunks",
    "camera_feature",
    "camera_features",
    "fresh_frames",
    "image_feature",
    "stream_samples",
]
