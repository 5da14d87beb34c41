"""What an evaluation covers, read from the settings of the command line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidiff.evaluation.tradeoff import PACE_OPTIONS
from unidiff.plugins import EvaluationRequest
from unidiff_vla.environments import SPLITS, WORDINGS, find_environment
from unidiff_vla.loading import METAWORLD_CHECKPOINT, METAWORLD_SIX

TABLETOP = ("tabletop-reach", "tabletop-push")
ONE_TOKEN = "one_token"
_ORDERS = ("sequential", "random")  # strategies whose order is not the model's choice
NUM_EPISODES, NUM_SEEDS, NUM_PARALLEL = 50, 3, 8

SETTINGS = {
    "envs": "environments, separated by commas; by default the six tasks of Meta-World where their "
    "weights ship, else those of the table",
    "wordings": f"some of {','.join(WORDINGS)}; all by default",
    "seeds": f"how many evaluation seeds, from --seed on; {NUM_SEEDS} by default",
    "split": f"of the layouts, one of {','.join(SPLITS)}; test by default",
    "replan_every": "actions carried out of each chunk; the checkpoint's own by default",
    "foresees": "true or false: plan the next picture with the actions; the checkpoint's own by "
    "default",
    "decoding": "JSON object of keywords of generate() over the checkpoint's own",
    "reference": f"{ONE_TOKEN}, or a JSON object of keywords of generate(): another way to decode, "
    "compared on the same layouts",
    "baseline": "folder of another checkpoint, compared on the same layouts",
    "planted": "wrong tokens planted in each of some chunks, for secondary remasking to repair; "
    "0 by default",
    "parallel": f"episodes side by side; {NUM_PARALLEL} by default",
}


@dataclass(frozen=True)
class EvaluationPlan:
    """What is driven.

    Attributes:
        envs: names of environments.
        wordings: what the policy is told.
        seeds: evaluation seeds.
        num_episodes: layouts of each environment, wording and seed.
        split: of the layouts.
        replan_every: actions carried out of each chunk; None: the checkpoint's own.
        foresees: whether the next picture is planned too; None: as the checkpoint says.
        decoding: keywords of `generate()` over the checkpoint's own.
        reference: keywords that another way to decode has; None: nothing is compared.
        baseline: another checkpoint to compare with, decoded as its own settings say.
        planted: wrong tokens planted in each of some chunks.
        parallel: episodes side by side.
    """

    envs: tuple[str, ...]
    wordings: tuple[str, ...] = WORDINGS
    seeds: tuple[int, ...] = (0, 1, 2)
    num_episodes: int = NUM_EPISODES
    split: str = "test"
    replan_every: int | None = None
    foresees: bool | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] | str | None = None
    baseline: Path | None = None
    planted: int = 0
    parallel: int = NUM_PARALLEL

    def __post_init__(self) -> None:
        """Reject what cannot be driven."""
        unknown = sorted(set(self.wordings) - set(WORDINGS))
        if self.reference is not None and self.baseline is not None:
            raise ValueError("one comparison at a time: give reference or baseline")
        if unknown or not self.wordings or not self.envs:
            raise ValueError(
                f"expected environments, and wordings among {WORDINGS}; got {self.envs} and "
                f"{self.wordings}"
            )
        for name, number in (("parallel", self.parallel), ("seeds", len(self.seeds))):
            if number < 1:
                raise ValueError(f"{name} must be >= 1; got {number}")
        if min(self.seeds) < 0 or self.split not in SPLITS:
            raise ValueError(
                f"expected --seed >= 0 and a split of {SPLITS}; got {self.seeds}, {self.split!r}"
            )
        others = [name for name in self.envs if not find_environment(name).is_ours]
        if others and set(self.wordings) != {"known"}:
            raise ValueError(f"{others} know no wordings: add --set wordings=known")

    @classmethod
    def of(cls, request: EvaluationRequest) -> "EvaluationPlan":
        """The plan of a request.

        Raises:
            ValueError: if a setting cannot be read, or does not fit.
        """
        given = request.settings
        six = METAWORLD_SIX if METAWORLD_CHECKPOINT.is_dir() else TABLETOP
        replan_every = given.get("replan_every")
        return cls(
            envs=_names(given, "envs", six),
            wordings=_names(given, "wordings", WORDINGS),
            seeds=tuple(request.seed + n for n in range(_number(given, "seeds", NUM_SEEDS))),
            num_episodes=request.limit or NUM_EPISODES,
            split=given.get("split", "test"),
            replan_every=None if replan_every is None else _number(given, "replan_every", 0),
            foresees=_truth(given, "foresees"),
            decoding=_keywords(given, "decoding"),
            reference=_reference(given),
            baseline=Path(given["baseline"]) if "baseline" in given else None,
            planted=_number(given, "planted", 0),
            parallel=_number(given, "parallel", NUM_PARALLEL),
        )


def reference_decoding(
    reference: Mapping[str, Any] | str, decoding: Mapping[str, Any]
) -> dict[str, Any]:
    """Keywords of the other way to decode.

    Args:
        reference: `ONE_TOKEN`: everything but the pace stays, one token is revealed per step, in
            the order of `decoding` if it is a fixed one, else the most certain first; or keywords
            over the others.
        decoding: keywords of the way that is measured.
    """
    if reference == ONE_TOKEN:
        kept = {name: value for name, value in decoding.items() if name not in PACE_OPTIONS}
        order = decoding.get("unmasking_strategy")
        return {**kept, "unmasking_strategy": order if order in _ORDERS else "static"}
    assert not isinstance(reference, str)
    return {**decoding, **reference}


def _names(given: Mapping[str, str], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Names separated by commas."""
    found = [one.strip() for one in given[name].split(",")] if name in given else default
    return tuple(dict.fromkeys(one for one in found if one))


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    """A whole number."""
    try:
        return int(given.get(name, default))
    except ValueError as error:
        raise ValueError(f"{name} must be a whole number; got {given[name]!r}") from error


def _truth(given: Mapping[str, str], name: str) -> bool | None:
    """True or false, None where it was not given."""
    value = given.get(name)
    if value not in (None, "true", "false"):
        raise ValueError(f"{name} must be true or false; got {value!r}")
    return None if value is None else value == "true"


def _keywords(given: Mapping[str, str], name: str) -> dict[str, Any]:
    """A JSON object, empty where it was not given."""
    try:
        value = json.loads(given.get(name, "{}"))
    except ValueError as error:
        raise ValueError(f"{name} must be a JSON object; got {given[name]!r} ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object; got {given[name]!r}")
    return value


def _reference(given: Mapping[str, str]) -> Mapping[str, Any] | str | None:
    """`ONE_TOKEN`, keywords, or None."""
    if given.get("reference") in (None, ONE_TOKEN):
        return given.get("reference")
    return _keywords(given, "reference")
