"""Trainer, recipes and their parts."""
