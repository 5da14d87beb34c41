"""A policy of one's own: from a recorded data set to a checkpoint, in one resumable run."""

from .assemble import assemble_policy
from .objectives import recommended_settings
from .recipe import PolicyRecipe
from .recordings import Recordings, read_recordings
from .run import train_policy

__all__ = [
    "PolicyRecipe",
    "Recordings",
    "assemble_policy",
    "read_recordings",
    "recommended_settings",
    "train_policy",
]
