"""Suites and task metrics."""
