"""Questions about pictures: a task for UniDiff."""

from unidiff.plugins import Plugin

from .places import Places
from .task import VQA

plugin = Plugin("vqa", tasks=(VQA(), Places()))
