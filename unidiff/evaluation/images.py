"""`image_psnr_db` and `image_code_use`: how well the image tokenizer keeps held-out pictures."""

# Shapes: N pictures.

import numpy as np

from unidiff.data.sources.scenes import render_scene, sample_scene, scene_generator
from unidiff.data.sources.tabletop import TabletopEnv
from unidiff.data.sources.tabletop_expert import expert_policy
from unidiff.data.sources.tabletop_rollout import evaluation_seeds, rollout
from unidiff.data.sources.tabletop_scene import TASKS

from .context import EvaluationContext, Settings
from .intervals import mean_interval, wilson_interval
from .pictures import decode_pictures, encode_pictures
from .report import Measurement

_PEAK = 255.0
_FEWEST_CODES = 240  # issue 2, done when 4


def psnr_db(pictures: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(N,) peak signal-to-noise ratio of (N, H, W, 3) uint8 pictures in dB; at most 99."""
    difference = pictures.astype(np.float64) - references
    error = np.maximum((difference**2).mean((1, 2, 3)), _PEAK**2 / 10**9.9)
    return 10.0 * np.log10(_PEAK**2 / error)


def measure_images(context: EvaluationContext, settings: Settings) -> list[Measurement]:
    """Round trips of photographs, scenes and table pictures; the numbers are the worst set's.

    Args:
        context: tokenizer, how much.
        settings: `num_photographs`, `num_scenes` of each split, and `num_tables` pictures.
    """
    number = context.count(settings["num_scenes"])
    photographs, _, _ = context.photographs(context.count(settings["num_photographs"]))
    sets = {
        "photographs": photographs,
        "seen_scenes": _scenes("seen", number, context.seed),
        "unseen_scenes": _scenes("unseen", number, context.seed),
        "table": table_pictures(context.count(settings["num_tables"]), context.seed),
    }
    num_codes = context.processor.layout.range_of("image").size
    values, used = {}, {}
    for name, pictures in sets.items():
        codes = encode_pictures(context.processor, pictures)
        values[name] = psnr_db(decode_pictures(context.processor, codes), pictures)
        used[name] = np.unique(codes)
    return [_psnr(values), _code_use(used, num_codes, values)]


def _psnr(values: dict[str, np.ndarray]) -> Measurement:
    """The worst set's mean."""
    means = {name: float(value.mean()) for name, value in values.items()}
    worst = min(means, key=lambda name: means[name])
    return Measurement(
        name="image_psnr_db",
        value=means[worst],
        num_inputs=sum(len(value) for value in values.values()),
        interval=mean_interval(values[worst]),
        details={
            "worst_set": worst,
            "by_set": {
                name: {
                    "mean_db": means[name],
                    "5th_percentile_db": float(np.quantile(value, 0.05)),
                    "num_pictures": len(value),
                }
                for name, value in values.items()
            },
        },
    )


def _code_use(
    used: dict[str, np.ndarray], num_codes: int, values: dict[str, np.ndarray]
) -> Measurement:
    """The worst set's share of used codes."""
    shares = {name: len(codes) / num_codes for name, codes in used.items()}
    worst = min(shares, key=lambda name: shares[name])
    overall = len(np.unique(np.concatenate(list(used.values())))) / num_codes
    return Measurement(
        name="image_code_use",
        value=shares[worst],
        num_inputs=sum(len(value) for value in values.values()),
        interval=wilson_interval(len(used[worst]), num_codes),
        details={
            "worst_set": worst,
            "by_set": shares,
            "overall": overall,
            "num_codes": num_codes,
        },
        conditions={"at_least_240_codes": num_codes >= _FEWEST_CODES},
    )


def _scenes(split: str, number: int, seed: int) -> np.ndarray:
    """Pictures of held-out scenes."""
    first = seed * number
    return np.stack(
        [
            render_scene(sample_scene(scene_generator(split, first + index), split))
            for index in range(number)
        ]
    )


def table_pictures(number: int, seed: int) -> np.ndarray:
    """(number, 32, 32, 3) uint8: what the camera sees while the expert works on unseen tables."""
    frames: list[np.ndarray] = []
    count = 0
    while count < number:
        table = evaluation_seeds(1)[0] + seed * number + len(frames)
        env = TabletopEnv(TASKS[len(frames) % len(TASKS)])
        result = rollout(expert_policy(env), table, env.task, env=env)
        frames.append(result.frames)
        count += len(result.frames)
    return np.concatenate(frames)[:number]
