"""How a policy plans and executes: its settings, checked against a checkpoint and saved with it."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from unidiff.cli import samplers

SETTINGS_FILE = "policy.json"
DRAFT = "draft"
# What the policy itself sets in each call of `generate()`, or what no canvas has.
_OWN_OPTIONS = (
    "seed",
    "return_dict_in_generate",
    "return_trace",
    "use_cache",
    "max_new_tokens",
    "max_length",
)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value))


# Field of `PolicySettings` -> (what its value must be, in words).
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "decoding": (lambda value: isinstance(value, Mapping), "an object of keywords"),
    "replan_every": (lambda value: value is None or _is_count(value), "a whole number or null"),
    "inference_delay": (_is_count, "a whole number"),
    "ensemble_decay": (lambda value: value is None or _is_number(value), "a number or null"),
    "cameras": (lambda value: value is None or _is_names(value), "a list of names, or null"),
    "image_size": (lambda value: value is None or _is_size(value), "[height, width], or null"),
    "foresees": (_is_flag, "true or false"),
    "reuses_prompt": (_is_flag, "true or false"),
    "seed": (_is_count, "a whole number"),
}


def check_decoding(options: Mapping[str, Any]) -> None:
    """Raise ValueError if keywords of `generate()` hold one that the policy itself sets."""
    if own := sorted(set(options) & set(_OWN_OPTIONS)):
        raise ValueError(
            f"decoding must not hold {own}: the policy sets them; pass seed= to the call and leave "
            "the others out"
        )


@dataclass(frozen=True)
class PolicySettings:
    """What holds for every plan of a policy.

    Attributes:
        decoding: keywords of `generate()`; None in a keyword is the option's own default.
        replan_every: timesteps of each chunk that `select_action` executes before it plans anew
            (receding horizon); None: the whole chunk.
        inference_delay: leading timesteps of the previous chunk's leftover that `select_action`
            pins in the next one, as if they were executed while it is planned (real-time chunking).
        warm_start: least confidence, in (0, 1], at which `select_action` also pins other tokens of
            the leftover; "draft": it shows all of them, and secondary remasking, which `decoding`
            must ask for, gives back what it doubts; None: neither.
        ensemble_decay: m of temporal ensembling's weights exp(-m i), i = 0 the oldest prediction;
            None: the newest chunk is executed as it is.
        cameras: names of several cameras in the order of training; None: one, under "image".
        image_size: (height, width) in pixels of every camera; None: the processor's own size.
        foresees: whether a plan also denoises, on the chunk's canvas, the picture that the first
            camera will see after it (world model). Wants weights trained so (`future_share`).
        reuses_prompt: whether `select_action` keeps the keys of the prompt's unchanged beginning.
            Exact under causal attention up to the rounding of floats; the module `policy` says how
            little that beginning is.
        seed: of the first episode's plans.
    """

    decoding: Mapping[str, Any] = field(default_factory=samplers.acting)
    replan_every: int | None = None
    inference_delay: int = 0
    warm_start: float | str | None = None
    ensemble_decay: float | None = None
    cameras: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    foresees: bool = False
    reuses_prompt: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject settings that fit no checkpoint."""
        for name in ("cameras", "image_size"):  # lists, when they come from JSON
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, (is_good, wanted) in _KINDS.items():
            if not is_good(getattr(self, name)):
                raise ValueError(f"{name} must be {wanted}; got {getattr(self, name)!r}")
        check_decoding(self.decoding)
        start = self.warm_start
        is_number = _is_number(start) and 0 < start <= 1  # type: ignore[operator]
        if start not in (None, DRAFT) and not is_number:
            raise ValueError(f"warm_start must be in (0, 1], {DRAFT!r} or None; got {start!r}")
        if start == DRAFT and self.decoding.get("revision") != "secondary":
            raise ValueError(
                f"warm_start={DRAFT!r} needs decoding with revision='secondary', which decides "
                f"what of the draft stays; got {dict(self.decoding)}"
            )
        if self.ensemble_decay is not None and not math.isfinite(self.ensemble_decay):
            raise ValueError(f"ensemble_decay must be finite or None; got {self.ensemble_decay=}")
        if self.ensemble_decay is not None and (self.inference_delay or self.warm_start):
            raise ValueError(
                "temporal ensembling executes averages, which no chunk can have pinned: leave out "
                f"ensemble_decay, or inference_delay and warm_start; got {self.ensemble_decay=}, "
                f"{self.inference_delay=}, {self.warm_start=}"
            )
        if self.cameras is not None and len(set(self.cameras)) != max(1, len(self.cameras)):
            raise ValueError(
                f"cameras must be one or more different names, or None; got {self.cameras}"
            )

    def executed(self, horizon: int) -> int:
        """Timesteps executed of each chunk of `horizon`.

        Raises:
            ValueError: if `replan_every` or `inference_delay` do not fit the horizon.
        """
        count = horizon if self.replan_every is None else self.replan_every
        if not 1 <= count <= horizon:
            raise ValueError(
                f"replan_every must lie in [1, {horizon}], the checkpoint's horizon; got {count}: "
                "a chunk holds no further actions"
            )
        if not 0 <= self.inference_delay <= horizon - count:
            raise ValueError(
                f"inference_delay must lie in [0, {horizon - count}], what replan_every={count} "
                f"leaves of a chunk of {horizon}; got {self.inference_delay}: replan more often"
            )
        return count

    def save(self, folder: Path) -> Path:
        """Write `policy.json`; raises TypeError if an option is a callable."""
        path = folder / SETTINGS_FILE
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path) -> "PolicySettings":
        """Settings of a checkpoint; the defaults where it has no `policy.json`.

        Raises:
            ValueError: if the file is damaged or has unknown keys.
        """
        path = folder / SETTINGS_FILE
        if not path.is_file():
            return cls()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged or cut short ({error}): save it again") from error
        known = {one.name for one in fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            raise ValueError(f"{path} must hold an object with keys of {sorted(known)} only")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
