"""Whether weights and action tokens can give what a plan asks for.

What weights were trained for stands in `config.json` under `policy_training`. Of weights without
that field (of older folders or another route, and the bundled ones) nobody knows it, and nothing is
refused for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unidiff.generation.sampling import MEDIAN
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.fast import FastTokenizer


def policy_training(objective: str, future_share: float) -> dict[str, Any]:
    """The field `policy_training` of a configuration; see `PolicyRecipe` for both."""
    return {"objective": objective, "future_share": future_share}


def check_trained_for(config: Any, decoding: Mapping[str, Any], foresees: bool) -> None:
    """Raise ValueError if a plan asks for what the weights were not trained for.

    Args:
        config: of the weights.
        decoding: keywords of `generate()`.
        foresees: whether the picture to come is planned too.
    """
    training = getattr(config, "policy_training", None)
    if training is None:
        return
    objective = training["objective"]
    if decoding.get("decoding_mode") == "ar" and objective != "ar":
        raise ValueError(
            "decoding_mode='ar' reads each token from those before it, and these weights were "
            f"trained with objective={objective!r}: leave decoding_mode out, or train others with "
            "`unidiff train-policy --objective ar`"
        )
    if foresees and not training["future_share"]:
        raise ValueError(
            "foresees=True plans the picture to come, and these weights were trained without it "
            "(future_share=0): leave it out, or train others with `unidiff train-policy "
            "--future-share 0.5`"
        )


def check_ordered(bins: Any, decoding: Mapping[str, Any]) -> None:
    """Raise ValueError if medians are asked for of tokens that are in no order.

    Args:
        bins: an `ActionTokenizer`.
        decoding: keywords of `generate()`.
    """
    if decoding.get("greedy_choice") == MEDIAN and isinstance(bins, FastTokenizer):
        raise ValueError(
            "greedy_choice='median' takes the middle of codes that are in order, and FAST's are "
            "numbers of merges, where the middle one means nothing: leave greedy_choice out, or "
            "train on bins or frequencies"
        )


def check_pinnable(bins: Any, asked: Sequence[str]) -> None:
    """Raise ValueError if actions are to be known beforehand of tokens that hold no single ones.

    Args:
        bins: an `ActionTokenizer`.
        asked: what asks for it; none, nothing is pinned.
    """
    if asked and not isinstance(bins, BinTokenizer):
        raise ValueError(
            f"{' and '.join(asked)} pins or drafts single actions, and only bins can be pinned: a "
            f"token of {type(bins).__name__} is a part of all timesteps; leave it out, or train on "
            "bins"
        )


def check_has_state_bins(processor: Any) -> None:
    """Raise ValueError if weights read states and nothing says in which range they were.

    Args:
        processor: a `UniDiffProcessor`.
    """
    if processor.state_bins is None and "state" in processor.layout.ranges:
        raise ValueError(
            "statistics of the state are missing from processor_config.json (state_bins), and the "
            "layout has tokens of states: the policy would drive without its state; restore the "
            "file, or fetch the checkpoint again"
        )


def fewest_steps(decoding: Mapping[str, Any]) -> int:
    """Steps that a plan needs: two where secondary remasking gives tokens back, else one."""
    return 2 if decoding.get("revision") == "secondary" else 1
