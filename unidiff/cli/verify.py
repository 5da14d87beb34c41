"""`unidiff verify`: our reading of somebody else's checkpoint against its own code."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonFlag
from .output import print_json
from .session import choose_device, quiet_transformers

if TYPE_CHECKING:
    from unidiff.convert.verifying import Verdict

DIFFERENT_EXIT = 1


def verify(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder of the checkpoint as it is published, or its hub name.")
    ],
    prompt: Annotated[
        list[str] | None, typer.Option(help="What a user says; several times for several.")
    ] = None,
    new_tokens: Annotated[int, typer.Option(help="Greedy tokens per prompt.", min=1)] = 16,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Of the repository on the hub.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own code.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read .bin and .pt files, tensors only.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare logits and greedy tokens with a checkpoint's own code; exit code 1: they differ."""
    from unidiff.convert.verifying import PROMPTS
    from unidiff.convert.verifying import verify as compared
    from unidiff.tokens.foreign import PICKLES, local_folder

    quiet_transformers()
    code = ("*.py",) if trust_remote_code else ()
    pickles = PICKLES if allow_pickle else ()
    folder = local_folder(checkpoint, more=(*code, *pickles), revision=revision)
    verdict = compared(
        folder,
        prompt or PROMPTS,
        num_tokens=new_tokens,
        dtype=dtype,
        device=choose_device(device),
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    if as_json:
        print_json({"checkpoint": checkpoint, "is_same": verdict.is_same, **asdict(verdict)})
    else:
        _print_table(checkpoint, verdict)
    if not verdict.is_same:
        raise typer.Exit(DIFFERENT_EXIT)


def _print_table(checkpoint: str, verdict: "Verdict") -> None:
    """The verdict for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{checkpoint} ({verdict.family}) against {verdict.against}")
    table.add_column("prompt")
    for name in ("max difference", "mean", "of", "same likeliest", "same greedy tokens"):
        table.add_column(name, justify="right")
    for one in verdict.prompts:
        table.add_row(
            _short(one.prompt),
            f"{one.max_difference:.2g}",
            f"{one.mean_difference:.2g}",
            f"{one.scale:.3g}",
            f"{one.same_likeliest:.1%}",
            f"{one.same_tokens:.1%}",
        )
    table.caption = (
        f"{'the same' if verdict.is_same else 'DIFFERENT'}: logits in {verdict.dtype}, "
        f"{verdict.tolerance:g} of the largest one allowed"
    )
    Console().print(table)


def _short(text: str, most: int = 32) -> Any:
    """A text that fits into a column; nothing in it is markup."""
    from rich.text import Text

    return Text(text if len(text) <= most else text[: most - 3] + "...")
