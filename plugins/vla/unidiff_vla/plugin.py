"""What the entry point names."""

from unidiff.plugins import Plugin

from .task import VlaTask

plugin = Plugin("vla", tasks=(VlaTask(),))
