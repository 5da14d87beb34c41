"""Train the judge of drawn garments on the 60,000 real training photographs, and measure it.

    python eval/judges/build_garment_judge.py            # a few minutes on one CPU core

Writes the weights into the package (or to --out), and what was measured beside them as JSON.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from unidiff.data.sources.garments import load_fashion_mnist, pad_to_canvas
from unidiff.evaluation.garment_judge import JUDGE_PATH, JudgeRecipe, save_judge, train_judge


def main() -> None:
    """Train, save, measure on the 10,000 test photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=JUDGE_PATH)
    parser.add_argument("--epochs", type=int, default=JudgeRecipe.epochs)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = JudgeRecipe(epochs=arguments.epochs)
    images, labels = load_fashion_mnist("train")
    begin = time.perf_counter()

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 200 == 0:
            print(f"{step}/{steps} loss {loss:.3f} {time.perf_counter() - begin:.0f} s", flush=True)

    judge = train_judge(pad_to_canvas(images), labels, recipe, progress)
    seconds = time.perf_counter() - begin
    save_judge(judge, arguments.out)
    images, labels = load_fashion_mnist("test")
    accuracy = float((judge.classify(pad_to_canvas(images)) == labels).mean())
    measured = {
        "test_accuracy": accuracy,
        "test_photographs": len(labels),
        "train_photographs": 60000,
        "recipe": asdict(recipe),
        "seconds": round(seconds),
        "threads": arguments.threads,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
