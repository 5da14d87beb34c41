"""The id space and the tokenizers of every modality; importing it registers the processors."""

from .processor import UniDiffProcessor

__all__ = ["UniDiffProcessor"]
