"""The judge of drawn garments: a small convolutional network trained on real photographs alone.

It has seen neither our image tokenizer nor our model. Its features also place drawings among
photographs (`coverage.py`). `eval/judges/build_garment_judge.py` rebuilds its weights.
"""

# Shapes: N images, F features.

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unidiff.data.sources.garments import CANVAS_SIZE, CLASS_NAMES
from unidiff.diffusion.random import uniform

JUDGE_PATH = Path(__file__).parent / "judges" / "garment_cnn.safetensors"
NUM_FEATURES = 128
_WIDTHS = (24, 48, 96)
_BATCH = 500
_DRAW_ORDER, _DRAW_FLIP, _DRAW_BLUR, _DRAW_SHIFT = 301, 302, 303, 304


@dataclass(frozen=True)
class JudgeRecipe:
    """How the judge is trained.

    Attributes:
        epochs: passes over the photographs.
        batch_size: photographs of one step.
        learning_rate: peak of the one-cycle rate of AdamW.
        prob_blur: share of photographs that are blurred a little, as an autoencoder's are.
        seed: decides weights, order and augmentation.
    """

    epochs: int = 6
    batch_size: int = 100
    learning_rate: float = 4e-3
    prob_blur: float = 0.5
    seed: int = 0


class GarmentCNN(nn.Module):
    """Three convolutions, one hidden layer of features, ten classes."""

    def __init__(self) -> None:
        """Fresh weights."""
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for following in _WIDTHS:
            layers += [
                nn.Conv2d(width, following, 3, padding=1, bias=False),
                nn.BatchNorm2d(following),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            width = following
        self.body = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten())
        self.hidden = nn.Linear(4 * width, NUM_FEATURES)
        self.head = nn.Linear(NUM_FEATURES, len(CLASS_NAMES))

    def features(self, grey_N1HW: Tensor) -> Tensor:
        """(N, F) activations of the hidden layer for (N, 1, 32, 32) pictures in [0, 1]."""
        return torch.relu(self.hidden(self.body(grey_N1HW)))

    def forward(self, grey_N1HW: Tensor) -> Tensor:
        """(N, 10) logits."""
        return self.head(nn.functional.dropout(self.features(grey_N1HW), 0.2, self.training))


class GarmentJudge:
    """Classes and features of pictures."""

    def __init__(self, network: GarmentCNN) -> None:
        """Judge with trained weights."""
        self.network = network.eval()

    def classify(self, pictures: np.ndarray) -> np.ndarray:
        """(N,) int64 class of each of (N, 32, 32, 3) uint8 pictures."""
        return np.concatenate([self.network(part).argmax(1) for part in self._batches(pictures)])

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """(N, F) float32 features of (N, 32, 32, 3) uint8 pictures."""
        parts = [self.network.features(part).numpy() for part in self._batches(pictures)]
        return np.concatenate(parts)

    def _batches(self, pictures: np.ndarray) -> Iterator[Tensor]:
        """Grey batches; raises ValueError unless the pictures are (N, 32, 32, 3) uint8."""
        wanted = (CANVAS_SIZE, CANVAS_SIZE, 3)
        if pictures.ndim != 4 or pictures.shape[1:] != wanted or pictures.dtype != np.uint8:
            raise ValueError(
                f"the judge sees (N, {CANVAS_SIZE}, {CANVAS_SIZE}, 3) uint8 pictures, got "
                f"{pictures.shape} {pictures.dtype}"
            )
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                yield as_grey(pictures[start : start + _BATCH])


def as_grey(pictures: np.ndarray) -> Tensor:
    """(N, 1, H, W) float32 in [0, 1]: mean over the channels of (N, H, W, 3) uint8 pictures."""
    return torch.from_numpy(pictures).float().mean(-1, keepdim=True).permute(0, 3, 1, 2) / 255.0


def load_judge(path: Path | str | None = None) -> GarmentJudge:
    """The judge that ships with the package, or the one in another file.

    Raises:
        FileNotFoundError: if the weights are missing; says how to rebuild them.
    """
    path = JUDGE_PATH if path is None else Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"the garment judge {path} is missing: rebuild it with "
            f"`python eval/judges/build_garment_judge.py --out {path}`"
        )
    network = GarmentCNN()
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return GarmentJudge(network)


def save_judge(judge: GarmentJudge, path: Path | str) -> None:
    """Write the weights in half precision."""
    weights = {name: value.half() for name, value in judge.network.state_dict().items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, path)


def train_judge(
    pictures: np.ndarray,
    labels: np.ndarray,
    recipe: JudgeRecipe = JudgeRecipe(),
    progress: Callable[[int, int, float], None] | None = None,
) -> GarmentJudge:
    """A judge trained on (N, 32, 32, 3) uint8 photographs and their (N,) classes.

    Args:
        pictures: real photographs.
        labels: class of each.
        recipe: rates and augmentation.
        progress: called with (step, steps, loss) after each step.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = GarmentCNN()
        _fit(network, pictures, torch.from_numpy(labels), recipe, progress)
    return GarmentJudge(network)


def _fit(
    network: GarmentCNN,
    pictures: np.ndarray,
    labels_N: Tensor,
    recipe: JudgeRecipe,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """Train in place."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    per_epoch = len(pictures) // recipe.batch_size
    steps = recipe.epochs * per_epoch
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    everything = torch.arange(len(pictures))
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = uniform(recipe.seed, _DRAW_ORDER, everything, epoch).argsort()
        chosen = order[place * recipe.batch_size : (place + 1) * recipe.batch_size]
        grey = augment(as_grey(pictures[chosen.numpy()]), chosen, epoch, recipe)
        logits = network.train()(grey)
        loss = nn.functional.cross_entropy(logits, labels_N[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if progress is not None:
            progress(step + 1, steps, float(loss.detach()))


def augment(grey_N1HW: Tensor, number_N: Tensor, epoch: int, recipe: JudgeRecipe) -> Tensor:
    """Photographs mirrored half of the time, some blurred, all moved by up to one pixel.

    Args:
        grey_N1HW: (N, 1, H, W) in [0, 1].
        number_N: (N,) int64 number of each photograph, which decides what happens to it.
        epoch: decides it, too.
        recipe: seed and share of blurred photographs.
    """
    flips = uniform(recipe.seed, _DRAW_FLIP, number_N, epoch)[:, None, None, None] < 0.5
    grey = torch.where(flips, grey_N1HW.flip(-1), grey_N1HW)
    soft = nn.functional.avg_pool2d(grey, 3, stride=1, padding=1)
    draw = uniform(recipe.seed, _DRAW_BLUR, number_N, epoch)[:, None, None, None]
    share = torch.clamp(draw / max(recipe.prob_blur, 1e-9), 0.0, 1.0)  # 1: left sharp
    grey = grey * share.float() + soft * (1.0 - share.float())
    shifts = (uniform(recipe.seed, _DRAW_SHIFT, number_N, epoch) * 9).long()
    moved = [grey.roll((int(s) // 3 - 1, int(s) % 3 - 1), (-2, -1)) for s in range(9)]
    return torch.stack(moved)[shifts, torch.arange(len(grey))]
