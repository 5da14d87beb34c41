"""LeRobotDataset v3 folders read and written with pyarrow and Pillow; lerobot is not needed."""

from .chunks import action_chunks, stream_samples
from .features import Feature, image_feature
from .reader import Episode, LeRobotFolder
from .writer import DatasetWriter

__all__ = [
    "DatasetWriter",
    "Episode",
    "Feature",
    "LeRobotFolder",
    "action_chunks",
    "image_feature",
    "stream_samples",
]
