"""Environments of gymnasium's that a user could have made; tests register them."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Corridor(gymnasium.Env):
    """Walk to the end: 6 steps of +1 in the first dimension. It may break, or show nonsense.

    Args:
        breaks_at: step at which it raises, in layouts with an odd seed.
        nan_at: step at which the state is not finite, in those.
    """

    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, breaks_at=None, nan_at=None, cameras=("image",)):
        self.breaks_at, self.nan_at, self.cameras = breaks_at, nan_at, cameras
        self.executed, self.render_mode = [], None
        pictures = spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "image": pictures,
                "state": spaces.Box(-np.inf, np.inf, (2,), np.float32),
                "instruction": spaces.Text(100, charset="abcdefghijklmnopqrstuvwxyz "),
            }
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.place, self.num_steps = seed or 0, 0.0, 0
        return self.observe(), {"success": False}

    def step(self, action):
        self.num_steps += 1
        if self.num_steps == self.breaks_at and self.seed % 2:
            raise RuntimeError("a joint\n  is stuck")
        self.executed.append(np.asarray(action))
        self.place += float(action[0])
        is_there = self.place >= 6
        return self.observe(), 0.0, is_there, self.num_steps >= 20, {"success": is_there}

    def observe(self):
        picture = np.full((32, 32, 3), 40 + self.num_steps, np.uint8)
        is_bad = self.num_steps == self.nan_at and self.seed % 2
        state = np.array([np.nan if is_bad else self.place / 10, self.seed], np.float32)
        pictures = dict.fromkeys(self.cameras, picture) if len(self.cameras) > 1 else picture
        return {"image": pictures, "state": state, "instruction": "walk to the end"}
