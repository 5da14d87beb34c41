"""Episodes driven by a policy: one, or many side by side. Knows policies by protocol alone."""

from .episode import EpisodeRecord, EpisodeRun
from .film import Film
from .lockstep import Drive, drive
from .protocol import ChunkPolicy
from .view import View

__all__ = ["ChunkPolicy", "Drive", "EpisodeRecord", "EpisodeRun", "Film", "View", "drive"]
