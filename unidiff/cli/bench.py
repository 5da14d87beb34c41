"""`unidiff bench ...`: benchmarks as commands, each a row in this table.

What they measure lives in `unidiff.evaluation`; timings are ratios within one run.
"""

import typer

from .bench_speculation import bench_speculation

bench = typer.Typer(
    name="bench", no_args_is_help=True, help="Measure speed, and quality against speed."
)
bench.command("speculation")(bench_speculation)
