"""One decode in a process of its own, and the memory it took: `python -m ...memory_probe JSON`.

`memory_benchmark.py` starts it. The peak is the kernel's high-water mark of resident memory, reset
right before the call, so it counts every allocator and every library.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unidiff.generation.config import UniDiffGenerationConfig

from .decode_setup import ModelShape, build_prompts, build_seeded

_STATUS = Path("/proc/self/status")
_INTERVAL = 0.001  # seconds between samples where the high-water mark cannot be reset


def resident_bytes(field: str = "VmRSS") -> int:
    """A memory field of /proc/self/status, in bytes.

    Raises:
        OSError: on a system without that file.
    """
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")


def peak_during(run: Callable[[], Any]) -> tuple[int, str]:
    """(highest resident bytes during a call, how they were read)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, proc(5)
    except OSError:
        return _sampled_peak(run), "sampled"
    run()
    return resident_bytes("VmHWM"), "high-water mark"


def _sampled_peak(run: Callable[[], Any]) -> int:
    """Highest resident bytes that a second thread saw."""
    peak, done = resident_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident_bytes())
            time.sleep(_INTERVAL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run()
    finally:
        done.set()
        thread.join()
    return max(peak, resident_bytes())


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of the parameters and buffers, tied ones once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def cache_bytes(settings: dict[str, Any]) -> int:
    """Bytes of the keys and values of all committed tokens; the last block is never committed."""
    length = settings["prompt_tokens"] + settings["new_tokens"] - settings["block_length"]
    size = getattr(torch, settings["dtype"]).itemsize
    per_token = 2 * settings["num_layers"] * settings["num_key_value_heads"] * settings["head_dim"]
    return int(settings["batch"] * length * per_token * size)


def measure(settings: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Memory of one decode.

    Args:
        settings: sizes, as in `suites/benchmarks/memory.toml`.
        options: of `generate()`, besides the lengths.
    """
    torch.set_num_threads(settings["threads"])
    names = ModelShape.__dataclass_fields__
    shape = ModelShape(**{name: settings[name] for name in names})
    _warm_up(settings, options, shape)
    model = build_seeded(
        shape,
        getattr(torch, settings["dtype"]),
        settings["seed"],
        canvas_length=settings["block_length"],
    )
    prompt_BL = build_prompts(
        shape.vocab_size, settings["batch"], settings["prompt_tokens"], settings["seed"]
    )
    config = _generation_config(settings, options)
    before = resident_bytes()
    output: list[Any] = []
    peak, read_by = peak_during(
        lambda: output.append(model.generate(prompt_BL, generation_config=config))
    )
    weights, cache = weight_bytes(model), cache_bytes(settings)
    return {
        "transient_bytes": peak - before - cache,
        "peak_bytes": peak,
        "resident_before_bytes": before,
        "weight_bytes": weights,
        "cache_bytes": cache,
        "process_bytes": before - weights,
        "read_by": read_by,
        "num_tokens": int(output[0].sequences[:, prompt_BL.shape[1] :].numel()),
        "num_forwards": int(output[0].num_forwards.max()),
    }


def _generation_config(
    settings: dict[str, Any], options: dict[str, Any]
) -> UniDiffGenerationConfig:
    """Options of the measured call."""
    return UniDiffGenerationConfig(
        max_new_tokens=settings["new_tokens"],
        block_length=settings["block_length"],
        unmasking_strategy="static",
        max_denoising_steps=settings["steps"],
        eos_token_id=-1,
        seed=settings["seed"],
        return_dict_in_generate=True,
        use_cache=False,
        **options,
    )


def _warm_up(settings: dict[str, Any], options: dict[str, Any], shape: ModelShape) -> None:
    """Decode with a tiny vocabulary, so that libraries and thread pools are there before."""
    small = ModelShape(**{**vars(shape), "vocab_size": 64})
    model = build_seeded(
        small, getattr(torch, settings["dtype"]), 0, canvas_length=settings["block_length"]
    )
    model.generate(
        build_prompts(small.vocab_size, 1, 4, 0),
        generation_config=_generation_config({**settings, "new_tokens": 16}, options),
    )


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
