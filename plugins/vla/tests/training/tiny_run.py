"""A recipe, data sets and observations so small that a whole run takes seconds."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from unidiff_vla.lerobot_dataset import DatasetWriter, Feature, image_feature
from unidiff_vla.policy import PolicySettings
from unidiff_vla.training import PolicyRecipe

CAMERAS = ("side", "front")
TASKS = ("reach", "push", "drawer-open")
TINY = PolicyRecipe(
    horizon=2,
    num_action_bins=4,
    num_state_bins=4,
    levels=(3, 3),
    tokenizer_widths=(8,),
    tokenizer_steps=2,
    tokenizer_batch=4,
    steps=4,
    warmup_steps=1,
    decay_steps=1,
    batch_size=4,
    micro_batch=2,
    hidden_size=64,
    num_layers=1,
    intermediate_size=32,
    save_steps=2,
    bf16=False,
    compile_layers=False,
)
SETTINGS = PolicySettings(cameras=CAMERAS, decoding={"do_sample": False})


def write_set(
    folder: Path,
    told: str,
    size: int = 16,
    width: int = 3,
    cameras: tuple[str, ...] = CAMERAS,
    state: float = 0.5,
    actions: ArrayLike = 0.5,
) -> Path:
    """A data set of one episode of two frames; its pictures are 1, its actions 0.5 by default."""
    features = {f"observation.images.{one}": image_feature(size, size) for one in cameras}
    features |= {"observation.state": Feature("float32", (width,))}
    features |= {"action": Feature("float32", (2,))}
    writer = DatasetWriter(folder, features, fps=10)
    frames = {name: np.ones((2, *one.shape), one.numpy_dtype) for name, one in features.items()}
    frames["observation.state"][:] = state
    frames["action"][:] = actions
    writer.add_episode("one", frames, told)
    writer.finish()
    return folder


def an_observation() -> dict[str, object]:
    rng = np.random.default_rng(1)
    return {
        "images": {camera: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for camera in CAMERAS},
        "state": np.zeros(3, dtype=np.float32),
        "instruction": "open the drawer",
    }
