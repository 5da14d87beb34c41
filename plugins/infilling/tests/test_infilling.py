"""The contract of both tasks."""

from unidiff.plugins import PluginContract


class TestContract(PluginContract):
    plugin_name = "infilling"
