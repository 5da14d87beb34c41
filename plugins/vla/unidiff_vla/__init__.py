"""Robots for UniDiff: a task, environments, demonstrations, LeRobotDataset folders, the policy.

Importing this imports no simulator, no gymnasium and no torch; `plugin` is what is installed.
"""
