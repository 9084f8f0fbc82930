"""`advmix verify`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands.console import out, print_json, say
from advmix_cli.commands.options import DeviceName, Json
from advmix_cli.errors import AdvmixError, UsageError


def verify(
    place: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, or what `advmix eval --save-adversarial` kept.")
    ],
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="By default the one beside the images.")
    ] = None,
    data_root: Annotated[
        str | None, typer.Option("--data-root", metavar="DIR", help="Where the recipe's data are, on this machine.")
    ] = None,
    device: DeviceName = "auto",
    as_json: Json = False,
) -> None:
    """Look at stored adversarial images again: their perturbations, their pixels, their verdicts. 1 if any is wrong."""
    from advmix_cli import build
    from advmix_cli.verify import Unverified, Verified, kept, verified, verified_grid

    found = list(verified(kept(place), checkpoint, data_root, build.device(device), say))
    if not found:
        raise UsageError(f"{place} holds no adversarial images: `advmix eval CHECKPOINT --save-adversarial` keeps them")
    if as_json:
        print_json({"files": [one.to_json() for one in found], "is_right": all(one.is_right for one in found)})
    else:
        failed = [one for one in found if isinstance(one, Unverified)]
        verified_grid([one for one in found if isinstance(one, Verified)], failed).print(out)
    wrong = [one for one in found if not one.is_right]
    if wrong:
        raise AdvmixError(f"not what its verdicts say: {', '.join(str(one.path) for one in wrong)}")
