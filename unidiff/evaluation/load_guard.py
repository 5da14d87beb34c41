"""Timing on a machine that others use too: how busy it was, before and during each timing."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

_CALIBRATIONS = 5  # repetitions of the fixed work; the fastest counts
_SHORTEST = 0.2  # seconds below which the kernel's 10 ms ticks say nothing


@dataclass(frozen=True)
class Load:
    """How busy the machine was around one timing.

    Attributes:
        load_average: of the last minute, before it; None where the system does not say.
        slowdown: time of a fixed matrix product right before, over the fastest of this run.
        foreign_share: share of all processors' time that others took during it; None if it was
            too short or the system does not say.
        waited: seconds waited for a calmer moment.
        is_calm: whether slowdown and foreign share were within the guard's limits; where the share
            is not known, whether fewer tasks wanted to run than there are processors.
    """

    load_average: float | None
    slowdown: float
    foreign_share: float | None
    waited: float
    is_calm: bool


class LoadGuard:
    """Waits for calm moments, and says of each timing whether it was one."""

    def __init__(
        self, slowdown: float = 1.35, foreign_share: float = 0.15, patience: float = 5.0
    ) -> None:
        """Limits of a calm moment, and how long to wait for one.

        Args:
            slowdown: largest calm slowdown; a host that switches between two speeds stays below.
            foreign_share: largest calm share of others.
            patience: seconds to wait before each timing; 0: never.
        """
        self.slowdown, self.foreign_share, self.patience = slowdown, foreign_share, patience
        self.fastest = float("inf")
        # Of a decode step's size: 32 rows through a layer of 640 x 1920.
        self._left, self._right = torch.ones(32, 640), torch.ones(640, 1920)

    def limits(self) -> dict[str, float]:
        """The limits, for the report."""
        return {"slowdown": self.slowdown, "foreign_share": self.foreign_share}

    def measure(self, run: Callable[[], Any]) -> tuple[Any, float, Load]:
        """(result, seconds, load) of a call."""
        slowdown, waited = self._wait()
        load_average = _load_average()
        busy, own = _busy_seconds(), time.process_time()
        begin = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - begin
        foreign = _foreign_share(busy, own, seconds)
        is_calm = self.is_calm(load_average, slowdown, foreign)
        return result, seconds, Load(load_average, slowdown, foreign, waited, is_calm)

    def is_calm(
        self, load_average: float | None, slowdown: float, foreign_share: float | None
    ) -> bool:
        """Whether readings are those of a calm machine; see `Load.is_calm`."""
        if slowdown > self.slowdown:
            return False
        if foreign_share is not None:
            return foreign_share <= self.foreign_share
        return load_average is None or load_average <= (os.cpu_count() or 1) + 0.5

    def calibrate(self) -> float:
        """Slowdown now, at least 1: the fixed work's time over the fastest seen so far."""
        best = float("inf")
        for _ in range(_CALIBRATIONS):
            begin = time.perf_counter()
            self._left @ self._right
            best = min(best, time.perf_counter() - begin)
        self.fastest = min(self.fastest, best)
        return best / self.fastest

    def _wait(self) -> tuple[float, float]:
        """(slowdown, seconds waited) when it became calm or patience ran out."""
        begin = time.perf_counter()
        while True:
            slowdown, waited = self.calibrate(), time.perf_counter() - begin
            if slowdown <= self.slowdown or waited >= self.patience:
                return slowdown, waited
            time.sleep(0.1)


def worse(first: Load, second: Load) -> Load:
    """One record of two timings that belong together."""
    foreign = [load.foreign_share for load in (first, second) if load.foreign_share is not None]
    return Load(
        **asdict(second)
        | {
            "slowdown": max(first.slowdown, second.slowdown),
            "foreign_share": max(foreign, default=None),
            "waited": first.waited + second.waited,
            "is_calm": first.is_calm and second.is_calm,
        }
    )


def describe_machine() -> dict[str, Any]:
    """Processor, threads and the settings of the environment that speed depends on."""
    settings = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "MALLOC_TRIM_THRESHOLD_")
    return {
        "processor": _processor(),
        "num_processors": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment": {name: os.environ[name] for name in settings if name in os.environ},
    }


def _processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _load_average() -> float | None:
    """Load average of the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _busy_seconds() -> float | None:
    """Processor seconds that the machine has worked since it started, stolen ones included."""
    path = Path("/proc/stat")
    if not path.is_file():
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, path.read_text().split("\n", 1)[0].split()[1:9]
    )
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _foreign_share(busy_before: float | None, own_before: float, seconds: float) -> float | None:
    """Share of the machine that others used since the two readings, which lie `seconds` back."""
    busy, own = _busy_seconds(), time.process_time()
    if busy is None or busy_before is None or seconds < _SHORTEST:
        return None
    foreign = (busy - busy_before) - (own - own_before)
    return max(0.0, foreign / (seconds * (os.cpu_count() or 1)))
