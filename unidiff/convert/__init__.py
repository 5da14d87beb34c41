"""Other people's checkpoints to and from ours."""
