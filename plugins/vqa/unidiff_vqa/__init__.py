"""Questions about pictures: a task for UniDiff."""

from unidiff.plugins import Plugin

from .task import VQA
from .warmth import Warmth

plugin = Plugin("vqa", tasks=(VQA(), Warmth()))
