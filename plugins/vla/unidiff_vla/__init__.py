"""Robots for UniDiff: simulated environments, recorded demonstrations, LeRobotDataset folders.

Importing this imports no simulator and no gymnasium.
"""
