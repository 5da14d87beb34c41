"""The interface a plugin implements, and the registry."""
