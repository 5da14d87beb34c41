"""Commands that this plugin adds to `unidiff`."""
