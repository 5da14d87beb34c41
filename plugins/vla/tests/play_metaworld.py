"""python play_metaworld.py TASK SEED...: digests of states and pictures of short episodes."""

import hashlib
import sys

import gymnasium
import numpy as np
from unidiff_vla.environments import environment_id


def main(task: str, seeds: list[int]) -> None:
    """Play some noisy steps of each seed and print two digests of each."""
    env = gymnasium.make(environment_id(task), split="test").unwrapped
    for seed in seeds:
        rng = np.random.default_rng(seed)
        states, pictures = hashlib.sha256(), hashlib.sha256()
        observation, _ = env.reset(seed=seed)
        expert = env.expert()
        for _ in range(12):
            states.update(observation["state"].tobytes() + env._full_state.tobytes())
            pictures.update(observation["image"].tobytes())
            observation = env.step(expert() + rng.normal(0.0, 0.1, 4))[0]
        print(states.hexdigest(), pictures.hexdigest())
    env.close()


if __name__ == "__main__":
    main(sys.argv[1], [int(seed) for seed in sys.argv[2:]])
