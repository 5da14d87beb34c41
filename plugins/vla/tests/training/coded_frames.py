"""Made-up coded frames for the tests of rows."""

import numpy as np
from unidiff_vla.training.source import CodedFrames


def coded(instructions: tuple[str, ...], task_of: tuple[int, ...]) -> CodedFrames:
    """One frame of each sentence; its chunk is 3 everywhere, doing nothing is 1."""
    number = len(instructions)
    return CodedFrames(
        pictures=np.zeros((number, 2, 4), dtype=np.uint16),
        states=np.zeros((number, 3), dtype=np.int64),
        chunks=np.full((number, 2, 2), 3),
        instruction_index=np.arange(number),
        instructions=instructions,
        task_of=task_of,
        still=np.full((2, 2), 1),
        episode_index=np.zeros(number, dtype=np.int64),
        is_fresh=np.ones(number, dtype=bool),
        turns=np.zeros(0, dtype=np.int64),
    )
