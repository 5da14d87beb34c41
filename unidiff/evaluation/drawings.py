"""`drawn_garment_accuracy`, `drawn_garment_coverage` and `drawn_scene_accuracy`."""

# Shapes: N drawings.

from pathlib import Path

import numpy as np

from unidiff.data.sources.garments import (
    CLASS_NAMES,
    DRAWING_REQUESTS,
    load_fashion_mnist,
    pad_to_canvas,
    with_article,
)
from unidiff.data.sources.scene_judge import scene_matches
from unidiff.data.sources.scene_language import drawing_request
from unidiff.data.sources.scenes import Scene, sample_scene, scene_generator

from .context import EvaluationContext, Settings, share_measurement, user_turn
from .coverage import coverage, nearest_squared_error, repeated_share
from .garment_judge import GarmentJudge, load_judge
from .intervals import wilson_interval
from .pictures import decode_pictures
from .report import Measurement

_NEIGHBOUR = 5
_MOST_DUPLICATES = 0.01  # issue 2, done when 4
_SCENE_SEED_START = 10_000_000  # far from the scenes that questions are about


def garment_requests(number: int) -> tuple[list[str], np.ndarray]:
    """Requests that name each class, in each phrasing, equally often; and the (N,) classes."""
    labels = np.arange(number) % len(CLASS_NAMES)
    phrasings = (np.arange(number) // len(CLASS_NAMES)) % len(DRAWING_REQUESTS)
    requests = [
        DRAWING_REQUESTS[phrasing].format(thing=with_article(CLASS_NAMES[label]))
        for label, phrasing in zip(labels, phrasings, strict=True)
    ]
    return requests, labels


def measure_garment_drawings(context: EvaluationContext, settings: Settings) -> list[Measurement]:
    """Drawings of garments: of the class asked for, as varied as photographs, and no copies.

    Args:
        context: who answers, how much.
        settings: `num_drawings`, `sampler`, and optionally `judge` (path of other weights).
    """
    number = context.count(settings["num_drawings"])
    codes, drawings, labels = draw_garments(context, settings, number)
    judge = load_judge(settings.get("judge"))
    measurements = [_accuracy(context, judge, drawings, labels)]
    if number > _NEIGHBOUR:
        measurements.append(_coverage(context, judge, drawings, codes))
    return measurements


def draw_garments(
    context: EvaluationContext, settings: Settings, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, h * w) codes, (N, H, W, 3) pictures and (N,) classes asked for."""
    requests, labels = garment_requests(number)
    codes = context.responder.images(
        [user_turn(request) for request in requests], settings["sampler"], context.sampling_seed
    )
    return codes, decode_pictures(context.processor, codes), labels


def _accuracy(
    context: EvaluationContext, judge: GarmentJudge, drawings: np.ndarray, labels: np.ndarray
) -> Measurement:
    """Share of drawings that the judge takes for what was asked for."""
    right = judge.classify(drawings) == labels
    photographs, codes, truth = context.photographs(len(labels))
    round_trip = decode_pictures(context.processor, codes)
    details = {
        "by_class": {
            name: round(float(right[labels == label].mean()), 4)
            for label, name in enumerate(CLASS_NAMES)
            if (labels == label).any()
        },
        "judge_on_photographs": float((judge.classify(photographs) == truth).mean()),
        "judge_on_round_trip": float((judge.classify(round_trip) == truth).mean()),
    }
    return share_measurement("drawn_garment_accuracy", right, details=details)


def _coverage(
    context: EvaluationContext, judge: GarmentJudge, drawings: np.ndarray, codes: np.ndarray
) -> Measurement:
    """Coverage of as many test photographs, and the share of duplicates and copies."""
    number = len(drawings)
    photographs, photograph_codes, _ = context.photographs(2 * number)
    real = judge.features(photographs[:number])
    value = coverage(real, judge.features(drawings), _NEIGHBOUR)
    round_trip = decode_pictures(context.processor, photograph_codes)
    others = round_trip[number:]
    threshold = float(np.median(_squared_error(round_trip, photographs)))
    copies = copied_share(drawings, threshold)
    duplicates = repeated_share(codes)
    details = {
        "k": _NEIGHBOUR,
        "num_photographs": len(real),
        "coverage_by_other_photographs_round_trip": coverage(
            real, judge.features(others), _NEIGHBOUR
        ),
        "duplicates": duplicates,
        "copies_of_training_photographs": copies,
        "copies_among_test_photographs": copied_share(others, threshold),
        "copy_threshold_squared_error": threshold,
    }
    return Measurement(
        name="drawn_garment_coverage",
        value=value,
        num_inputs=number,
        interval=wilson_interval(round(value * len(real)), len(real)),
        details=details,
        conditions={"duplicates_at_most_1_percent": duplicates <= _MOST_DUPLICATES},
    )


def _squared_error(pictures: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(N,) mean squared difference of the grey pictures."""
    difference = pictures.astype(np.float64) - references
    return (difference.mean(-1) ** 2).mean((1, 2))


def copied_share(pictures: np.ndarray, threshold: float, root: Path | None = None) -> float:
    """Share of pictures as near to a training photograph as a photograph to its own round trip.

    Args:
        pictures: (N, 32, 32, 3) uint8.
        threshold: mean squared error per pixel below which a picture counts as a copy.
        root: folder of the photographs.
    """
    images, _ = load_fashion_mnist("train", root)
    grey = np.rint(pictures.astype(np.float64).mean(-1)).astype(np.uint8)
    references = pad_to_canvas(images)[..., 0]
    both = np.concatenate([references, references[:, :, ::-1]])
    return float((nearest_squared_error(grey, both) < threshold).mean())


def measure_scene_drawings(context: EvaluationContext, settings: Settings) -> list[Measurement]:
    """Drawings of two objects in an unseen combination, judged from their pixels.

    Args:
        context: who answers, how much.
        settings: `num_drawings` and `sampler`.
    """
    number = context.count(settings["num_drawings"])
    right, scenes = draw_scenes(context, settings, number)
    details = {"num_different_combinations": len({_words(scene) for scene in scenes})}
    return [share_measurement("drawn_scene_accuracy", right, details=details)]


def draw_scenes(
    context: EvaluationContext, settings: Settings, number: int
) -> tuple[np.ndarray, list[Scene]]:
    """(N,) bool, whether each scene asked for was drawn, and the scenes."""
    first = _SCENE_SEED_START + context.seed * number
    scenes = [
        sample_scene(scene_generator("unseen", first + index), "unseen", 2)
        for index in range(number)
    ]
    rng = np.random.default_rng([context.seed, number])
    requests = [user_turn(drawing_request(scene, rng)) for scene in scenes]
    codes = context.responder.images(requests, settings["sampler"], context.sampling_seed)
    drawings = decode_pictures(context.processor, codes)
    pairs = zip(drawings, scenes, strict=True)
    return np.array([scene_matches(drawing, scene) for drawing, scene in pairs]), scenes


def _words(scene: object) -> tuple[str, ...]:
    """The names of a scene's objects."""
    return tuple(sorted(item.name for item in scene.objects))  # type: ignore[attr-defined]
