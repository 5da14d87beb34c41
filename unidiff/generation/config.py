"""The class that saves decoding options, and the precedence of keyword, given and saved options.

Options are flat scalars, saved with the checkpoint in `generation_config.json`. A name that is not
in the table is an error; the name that another project uses is an error that says ours.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from transformers import GenerationConfig

from .option_checks import check_option
from .options import FOREIGN_NAMES, OPTIONS, plain_option, reject_option

logger = logging.getLogger(__name__)

# Values of transformers' other options that change nothing, besides None and False.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "length_penalty": (1.0,),
    "diversity_penalty": (0.0,),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
}
# Settings of transformers' assisted generation and metadata: without effect by themselves.
_INERT = (
    "transformers_version",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "target_lookbehind",
)


class UniDiffGenerationConfig(GenerationConfig):
    """Saved decoding options; an option left out is None and takes the checkpoint's or our default.

    Accepts every name of `OPTIONS` and, for files written by others, transformers' own names.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Options by keyword.

        Raises:
            ValueError: if a name is unknown or a value impossible.
        """
        ours = {name: kwargs.pop(name, None) for name in OPTIONS}
        known = set(_transformers_options())
        for name in kwargs:
            if not name.startswith("_") and name not in known:
                reject_option(name)
        super().__init__(**kwargs)
        for name, value in ours.items():
            setattr(self, name, plain_option(name, value))
        self.validate()

    @classmethod
    def with_ids_of(cls, config: Any, **options: Any) -> "UniDiffGenerationConfig":
        """Options beside the special ids of a model's configuration; errors as the constructor."""
        return cls(
            **options,
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )

    @classmethod
    def from_model_config(cls, model_config: Any) -> "UniDiffGenerationConfig":
        """Never: model configurations hold no decoding options.

        Raises:
            NotImplementedError: always; transformers then calls the class without arguments.
        """
        raise NotImplementedError(
            "UniDiffGenerationConfig is not derived from a model configuration"
        )

    @staticmethod
    def _get_default_generation_params() -> dict[str, Any]:
        """Our table, so that transformers' defaults (top_k=50, max_length=20) never apply."""
        return dict(OPTIONS)

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Raise ValueError or TypeError for an impossible value of an option."""
        del strict, user_set_attributes
        for name in OPTIONS:
            value = getattr(self, name, None)
            if callable(value):
                raise TypeError(
                    f"{name}={value!r} cannot be saved: pass a callable to generate() itself"
                )
            if value is not None:
                check_option(name, value)

    def given(self) -> dict[str, Any]:
        """The options that were set."""
        values = {name: getattr(self, name, None) for name in OPTIONS}
        return {name: value for name, value in values.items() if value is not None}


def _transformers_options() -> list[str]:
    """Names that transformers' own GenerationConfig stores."""
    return [name for name in vars(GenerationConfig()) if not name.startswith("_")]


def resolve_options(
    saved: GenerationConfig | None, given: GenerationConfig | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Every option with its value: keyword over given config over saved config over default.

    Args:
        saved: the checkpoint's generation config.
        given: `generate`'s `generation_config`.
        overrides: `generate`'s keywords, unknown ones included.

    Raises:
        ValueError: if a name is unknown, a value impossible, or transformers' option asks for
            something that masked diffusion does not do.
    """
    options = dict(OPTIONS)
    for config in (saved, given):
        if config is not None:
            _check_unused(vars(config))
            options.update({n: v for n in OPTIONS if (v := getattr(config, n, None)) is not None})
    known = set(_transformers_options())
    for name, value in overrides.items():
        if name in OPTIONS:
            options[name] = OPTIONS[name] if value is None else value
        elif name not in known or name in FOREIGN_NAMES:
            reject_option(name)
    _check_unused(overrides)
    if None not in (overrides.get("max_length"), overrides.get("max_new_tokens")):
        _warn_of_two_limits()
    elif overrides.get("max_length") is not None:
        options["max_new_tokens"] = None
    for name, value in options.items():
        if value is not None:
            options[name] = plain_option(name, value)
            check_option(name, options[name])
    return options


@lru_cache(maxsize=1)  # once
def _warn_of_two_limits() -> None:
    """Say that one of two limits has no effect."""
    logger.warning("max_new_tokens and max_length were both given: max_length is ignored")


def _check_unused(values: Mapping[str, Any]) -> None:
    """Raise ValueError if an option of transformers that we do not honour is switched on."""
    for name in set(_transformers_options()) - set(OPTIONS) - set(_INERT):
        value = values.get(name)
        if value is None or value is False or value in _NEUTRAL.get(name, ()):
            continue
        raise ValueError(
            f"{name}={value!r} is not supported by masked-diffusion decoding; the options are "
            f"{sorted(OPTIONS)}. Penalties and biases can be passed as logits_processor."
        )
