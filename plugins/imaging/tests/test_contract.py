"""The contract of every plugin, on each of the five tasks."""

from unidiff.plugins import PluginContract


class TestContract(PluginContract):
    plugin_name = "imaging"
