"""Pictures described in words: a task for UniDiff."""

from unidiff.plugins import Plugin

from .task import Captioning, NewStyle

plugin = Plugin("captioning", tasks=(Captioning(), NewStyle()))
