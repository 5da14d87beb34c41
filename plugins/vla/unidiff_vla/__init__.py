"""Robots for UniDiff: environments, demonstrations, LeRobotDataset folders, and the policy.

Importing this imports no simulator and no gymnasium.
"""
