"""`unidiff bench ...`: benchmarks as commands, each a row in this table.

What they measure lives in `unidiff.evaluation`; timings are ratios within one run.
"""

import typer

from .bench_adapt import bench_adapt
from .bench_decode import bench_decode, bench_memory
from .bench_quality import bench_quality
from .bench_reuse import bench_reuse
from .bench_speculation import bench_speculation

bench = typer.Typer(
    name="bench", no_args_is_help=True, help="Measure speed, and quality against speed."
)
bench.command("adapt")(bench_adapt)
bench.command("decode")(bench_decode)
bench.command("memory")(bench_memory)
bench.command("quality")(bench_quality)
bench.command("reuse")(bench_reuse)
bench.command("speculation")(bench_speculation)
