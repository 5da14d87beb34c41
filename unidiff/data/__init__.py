"""Data: sources, collators, packing and mixtures."""
