"""Recipe of the image tokenizer in tokenizers/image/: `python tokenizers/build_image_tokenizer.py`.

Half Fashion-MNIST photographs (training split), 35 % training scenes, 15 % frames of tabletop
demonstrations; measured on held-out images of each kind. Interrupted, it resumes. Codes made by one
tokenizer mean nothing to another: after a rebuild, everything trained on the codes must be trained
again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from unidiff.data.sources.garments import load_fashion_mnist, pad_to_canvas
from unidiff.data.sources.scenes import render_scene, sample_scene, scene_generator
from unidiff.data.sources.tabletop import TabletopEnv
from unidiff.data.sources.tabletop_expert import expert_policy, record_demonstrations
from unidiff.data.sources.tabletop_rollout import evaluation_seeds, rollout
from unidiff.tokens.image import FSQImageTokenizerConfig
from unidiff.tokens.image_processing import UniDiffImageProcessor
from unidiff.training.image_tokenizer import (
    TrainImageTokenizerOptions,
    code_use,
    reconstruction_psnr,
    train_image_tokenizer,
)

OUTPUT = Path(__file__).parent / "image"
SEED = 77
SHARES = {"garments": 0.5, "scenes": 0.35, "tabletop": 0.15}


def scene_images(split: str, count: int) -> np.ndarray:
    """(count, 32, 32, 3) uint8 rendered scenes of a split."""
    rng = scene_generator(split, SEED)
    return np.stack([render_scene(sample_scene(rng, split)) for _ in range(count)])


def training_images() -> dict[str, np.ndarray]:
    """Images of each kind, (N, 32, 32, 3) uint8."""
    return {
        "garments": pad_to_canvas(load_fashion_mnist("train")[0]),
        "scenes": scene_images("train", 30_000),
        "tabletop": record_demonstrations(20_000, seed=SEED).frames,
    }


def heldout_images() -> dict[str, np.ndarray]:
    """Images that training never sees, by name of the set."""
    frames = []
    for task in ("reach", "push"):
        for seed in evaluation_seeds(30):
            env = TabletopEnv(task)
            frames.append(rollout(expert_policy(env), seed, task, env=env).frames)
    return {
        "garments": pad_to_canvas(load_fashion_mnist("test")[0]),
        "scenes_seen": scene_images("seen", 1000),
        "scenes_unseen": scene_images("unseen", 1000),
        "tabletop": np.concatenate(frames),
    }


def main() -> None:
    """Train, save the model and its image processor, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--steps", type=int, default=TrainImageTokenizerOptions().steps)
    arguments = parser.parse_args()
    kinds = training_images()
    weights = np.concatenate(
        [np.full(len(images), SHARES[name] / len(images)) for name, images in kinds.items()]
    )
    model = train_image_tokenizer(
        np.concatenate(list(kinds.values())),
        FSQImageTokenizerConfig(),
        replace(TrainImageTokenizerOptions(), steps=arguments.steps),
        arguments.out,
        weights,
    )
    UniDiffImageProcessor().save_pretrained(arguments.out)
    measured = {
        name: {
            "images": len(images),
            "mean_psnr_db": round(float(reconstruction_psnr(model, images).mean()), 2),
            "code_use": code_use(model, images),
        }
        for name, images in heldout_images().items()
    }
    (arguments.out / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
