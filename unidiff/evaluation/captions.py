"""`caption_accuracy`: does the caption of a real photograph name the right garment?"""

import numpy as np

from unidiff.data.sources.garments import CLASS_NAMES, caption_names_class

from .context import EvaluationContext, Settings, image_part, share_measurement, user_turn
from .report import Measurement


def measure_captions(context: EvaluationContext, settings: Settings) -> list[Measurement]:
    """Captions of the first test photographs.

    Args:
        context: who answers, how much.
        settings: `num_photographs`, `request` (what the user says) and `sampler`.
    """
    _, codes, labels = context.photographs(context.count(settings["num_photographs"]))
    answers = ask_for_captions(context, settings, codes)
    named = [caption_names_class(answer) for answer in answers]
    right = np.array([name == label for name, label in zip(named, labels, strict=True)])
    details = {
        "by_class": {
            name: round(float(right[labels == label].mean()), 4)
            for label, name in enumerate(CLASS_NAMES)
            if (labels == label).any()
        },
        "named_none_or_several": sum(name is None for name in named) / len(named),
        "majority_baseline": float(np.bincount(labels).max() / len(labels)),
        "examples": answers[:3],
    }
    return [share_measurement("caption_accuracy", right, details=details)]


def ask_for_captions(
    context: EvaluationContext, settings: Settings, codes: np.ndarray
) -> list[str]:
    """The caption of each of (N, h * w) codes."""
    return context.responder.texts(
        [user_turn(image_part(one), settings["request"]) for one in codes],
        settings["sampler"],
        context.seed,
    )
