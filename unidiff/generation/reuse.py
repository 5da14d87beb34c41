"""Approximate cache reuse for full attention: its kinds, their options, and when they apply.

Under full attention every token changes every key, so nothing can be kept exactly. The kinds differ
in what they let grow stale; what each computes is the denoiser's business (`unidiff.model.reuse`).
"""

from collections.abc import Mapping
from typing import Any

from .guidance import guidance_of
from .options import APPROXIMATE_CACHE_REUSES, OPTIONS

# The options that each kind reads.
_READS = {
    "prefix": ("reuse_interval",),
    "dual": ("reuse_interval",),
    "delayed": ("reuse_interval",),
    "interval": ("reuse_interval", "reuse_prompt_interval", "reuse_share"),
    "elastic": ("reuse_interval", "reuse_gamma", "reuse_window"),
}
_REUSE_OPTIONS = tuple(dict.fromkeys(name for names in _READS.values() for name in names))


def is_approximate(options: Mapping[str, Any]) -> bool:
    """Whether the options ask for keys that may be stale."""
    return options["cache_reuse"] in APPROXIMATE_CACHE_REUSES


def check_reuse(attention_pattern: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError if `cache_reuse` and its options do not fit together or the checkpoint."""
    reuse = options["cache_reuse"]
    if reuse == "exact" and attention_pattern == "full":
        raise ValueError(
            "cache_reuse='exact' is impossible with attention_pattern='full': later tokens change "
            "earlier keys; use cache_reuse='none', or one of the approximate "
            f"{APPROXIMATE_CACHE_REUSES}"
        )
    if is_approximate(options) and attention_pattern != "full":
        raise ValueError(
            f"cache_reuse={reuse!r} approximates full attention; this checkpoint is "
            f"{attention_pattern!r}, for which 'exact' is faster, changes no token and is the "
            "default: leave cache_reuse out"
        )
    if is_approximate(options) and guidance_of(options).scales:
        raise ValueError(
            f"cache_reuse={reuse!r} keeps no stale keys of guidance's weaker branches: use "
            "cache_reuse='none', or leave guidance_scale out"
        )
    for name in _REUSE_OPTIONS:
        if options[name] != OPTIONS[name] and name not in _READS.get(reuse, ()):
            readers = [kind for kind, names in _READS.items() if name in names]
            raise ValueError(
                f"{name}={options[name]} has no effect with cache_reuse={reuse!r}, only with "
                f"{readers}: leave it out"
            )
