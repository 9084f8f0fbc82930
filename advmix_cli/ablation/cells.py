"""A table -> cells: a row with a seed, addressed by the digest of its resolved recipe."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.errors import RunDirectoryError, UsageError
from advmix_cli.failures import Failure, failure
from advmix_cli.recipe.suggest import did_you_mean
from advmix_cli.recipe.table import Row, Table

if TYPE_CHECKING:
    from advmix_cli.report.results import Results


@dataclass(frozen=True)
class Cell:
    """One recipe to run, in its own directory."""

    row: Row
    directory: Path

    @property
    def name(self) -> str:
        """Of a row with a seed, for a person."""
        return f"{self.row.name}, seed {self.row.recipe.seed}"

    @property
    def listed(self) -> str:
        """The same among others, as a row's name may have a comma."""
        return f"{self.row.name} (seed {self.row.recipe.seed})"

    def results(self) -> "Results | None":
        """What is known of it so far; RunDirectoryError for results of another recipe."""
        from advmix_cli.report.results import Results  # with torch, which who only looks can do without

        known = Results.load(self.directory)
        if known and known.digest != self.row.recipe.digest():
            raise RunDirectoryError(f"{self.directory} holds the results of another recipe")
        return known

    def ended(self) -> bool:
        """Whether nothing of it is left to run."""
        known = self.results()
        return known is not None and known.ended

    def failure(self) -> Failure | None:
        """Why it was given up, if it was; RunDirectoryError if that cannot be read."""
        return failure(self.directory)


def cells(table: Table, seeds: int, directory: Path) -> list[Cell]:
    """The cells of `table`: every row with the first seed, then every row with the next one.

    The seeds count up from each recipe's own. A directory's name starts with the row's for the reader's sake and ends
    with the digest, so that a recipe changed in anything that counts is another cell. UsageError beyond the last seed.
    """
    found: list[Cell] = []
    last = max(row.recipe.seed for row in table.rows) + seeds - 1
    if last >= 2**31:
        raise UsageError(f"--seeds {seeds}: seed {last:,} is beyond the largest, {2**31 - 1:,}")
    for offset in range(seeds):
        for row in table.rows:
            recipe = row.recipe.model_copy(update={"seed": row.recipe.seed + offset, "title": row.name})
            name = f"{_slug(row.name)}-seed{recipe.seed}-{recipe.digest()[:12]}"
            found.append(Cell(Row(row.name, recipe, row.paper), directory / name))
    names: dict[str, str] = {}
    for cell in found:
        row, seed = cell.row.name, cell.row.recipe.seed
        if (other := names.setdefault(cell.row.recipe.digest(), row)) != row:
            raise UsageError(f"--seeds {seeds}: with seed {seed} row '{row}' is the same experiment as row '{other}'")
    return found


def select(table: Table, wanted: Sequence[str]) -> Table:
    """The rows named in `wanted` or numbered in it (from 1), in the table's order; all of them if it is empty."""
    names = [row.name for row in table.rows]
    chosen: set[str] = set()
    for word in wanted:
        if word in names:
            chosen.add(word)
        elif word.isdecimal() and 1 <= int(word) <= len(names):
            chosen.add(names[int(word) - 1])
        else:
            raise UsageError(
                f"--rows: '{word}' is no row of {table.name}{did_you_mean(word, names)} (rows: "
                + ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
                + ")"
            )
    rows = tuple(row for row in table.rows if row.name in chosen) if wanted else table.rows
    return replace(table, rows=rows)


SYMBOLS = str.maketrans(
    {"λ": "lambda", "δ": "delta", "γ": "gamma", "ε": "epsilon", "κ": "kappa", "η": "eta", "α": "alpha", "β": "beta"}
)


def _slug(name: str) -> str:
    """Safe in any file system: "Ours, frozen λ" -> "ours-frozen-lambda"."""
    plain = unicodedata.normalize("NFKD", name.translate(SYMBOLS)).encode("ascii", "ignore")
    return re.sub(r"[^a-z0-9]+", "-", plain.decode().lower()).strip("-") or "row"
