"""`advmix import`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands.console import say
from advmix_cli.errors import UsageError


def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A .pt or .pth file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="What the network is kept under in it.")
    ] = None,
) -> None:
    """Take the tensors out of a file that torch has pickled, without running what is in it."""
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: what is written is safetensors, so let its name end in .safetensors")
    if source.suffix == ".safetensors" and source.exists():  # torch reads it, too, and would drop what its header says
        raise UsageError(f"{source} is safetensors already: there is nothing to take out of it")
    if target.exists():
        raise UsageError(f"{target} is there already")

    from safetensors.torch import save

    from advmix_cli.files import write_atomically
    from advmix_cli.pickled import tensors

    found = tensors(source, key)
    write_atomically(target, save(found.tensors, metadata={"format": "pt"}))
    where = f" under '{found.key}'" if found.key else ""
    say(f"{len(found.tensors)} tensors{where}: {target}")
    if found.others:
        say(f"warning: left out is what it has under {', '.join(found.others)}; --key NAME takes that")
