"""`generate` for any denoiser: options and tensors in, finished rows out."""

from collections.abc import Mapping, Sequence
from typing import Any

from .constraints import LogitsProcessor
from .denoiser import Denoiser
from .inputs import GenerationInputs
from .output import UniDiffGenerateOutput
from .session import DecodingSession
from .streaming import StoppingCriterion, Streamer


def generate(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    inputs: GenerationInputs,
    *,
    processors: Sequence[LogitsProcessor] = (),
    criteria: Sequence[StoppingCriterion] = (),
    streamer: Streamer | None = None,
    past: Any = None,
) -> UniDiffGenerateOutput:
    """Responses, or filled canvases, of a batch of prompts.

    Args:
        denoiser: the model.
        options: every option of `unidiff.generation.options.OPTIONS`; see `resolve_options`.
        inputs: prompts and, if exactly one canvas is to be filled, that canvas.
        processors: rules on (positions, vocabulary) logits.
        criteria: conditions on the (1, n) ids of a row that end it.
        streamer: is shown the prompt, each finished block and, if it wants them, drafts.
        past: cache of an earlier turn; what it shares with the prompt is not computed again.

    Raises:
        ValueError: if options, tensors and checkpoint do not fit together.
        TypeError: if a tensor has the wrong dtype, or `past` is no cache of the denoiser's.
    """
    if options["decoding_mode"] == "ar_text":
        has_canvas = inputs.canvas is not None or inputs.canvas_modality_ids is not None
        options = {**options, "decoding_mode": "diffusion" if has_canvas else "ar"}
    session = DecodingSession(denoiser, options, processors=processors)
    request = session.submit(inputs, criteria=criteria, streamer=streamer, past=past)
    try:
        session.run()
    finally:  # an interruption, too, ends what the streamer shows
        session.cancel(request)
    return request.output
