"""The cells of a table that did not come to their end, and what is told of them when all others have."""

from dataclasses import dataclass, field

from advmix_cli.ablation.cells import Cell
from advmix_cli.errors import CellsFailedError, InUseError


@dataclass
class Unfinished:
    """Of so many `cells`: those that `failed`, that somebody `stopped` alone, and that are `busy`, as other processes
    work in them."""

    cells: int
    failed: list[Cell] = field(default_factory=list)
    stopped: list[Cell] = field(default_factory=list)
    busy: list[Cell] = field(default_factory=list)

    def tell(self) -> None:
        """CellsFailedError or InUseError with their names, if there are any."""
        parts = [
            f"{why}: {', '.join(cell.listed for cell in found)}"
            for why, found in (
                ("failed", self.failed),
                ("stopped from outside", self.stopped),
                ("in use by other processes", self.busy),
            )
            if found
        ]
        if parts:
            error = CellsFailedError if self.failed or self.stopped else InUseError
            if self.cells > len(self.failed) + len(self.stopped) + len(self.busy):
                parts.append("all others have ended")
            raise error("; ".join([*parts, "the same command tries again"]))
