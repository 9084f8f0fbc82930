"""The cells of a table -> its document."""

import shlex
from pathlib import Path

import tomli_w

from advmix_cli.ablation.cells import Cell as TableCell
from advmix_cli.ablation.lines import lines_of
from advmix_cli.document.cells import There
from advmix_cli.document.parts import Document, Drawing, Listing, Part, Section
from advmix_cli.document.run import Found, environment, look, stamps
from advmix_cli.recipe.changes import changes, shown
from advmix_cli.recipe.table import Row
from advmix_cli.report.ablation import Line, ablation_grid
from advmix_cli.report.curves import row_curves
from advmix_cli.report.dots import dot_plot
from advmix_cli.report.figures import written
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.metrics import ROBUST, curve
from advmix_cli.report.tables import TEST_SELECTED, seconds
from advmix_cli.report.tables import stamp as settings_of


def document(there: There, figures: Path | None) -> Document:
    """Draw its figures into the directory `figures`, and put all together; without a directory there are none."""
    table = there.table
    found = {cell.directory: look(cell.directory) for cell in there.cells if cell.directory.is_dir()}
    wrong = [
        f"{cell.directory} holds another recipe than its row"
        for cell in there.cells
        if (one := found.get(cell.directory)) and one.recipe and one.recipe.digest() != cell.row.recipe.digest()
    ]
    known = {directory: one.results for directory, one in found.items()}
    given_up = {directory: one.failure for directory, one in found.items()}
    columns, lines = lines_of(
        table, there.cells, lambda cell: known.get(cell.directory), lambda cell: given_up.get(cell.directory)
    )
    title = table.title or table.name
    sections = (
        Section("Results", (ablation_grid(title, columns, lines, table.settings), *_columns(columns, lines))),
        Section("Figures", tuple(_figures(there, title, columns, lines, found, figures) if figures else ())),
        Section("Diagnosis", tuple(_diagnosis(there, found))),
        Section("Cells", (_cells(there, found),)),
        Section("Recipes", tuple(_recipes(there))),
        Section("Environment", tuple(environment([results for results in known.values() if results]))),
        Section("Again", (Listing(again(there), "sh"),)),
    )
    return Document(
        title=title,
        about=f"Table {table.name}, {_count(len(there.cells))} in {there.directory}",
        stamps=tuple(_stamps(there, found)),
        damage=tuple(dict.fromkeys([*there.damage, *wrong, *(text for one in found.values() for text in one.damage)])),
        sections=tuple(section for section in sections if section.parts),
    )


def _count(cells: int) -> str:
    return f"{cells:,} cell{'s' if cells > 1 else ''}"


def _stamps(there: There, found: dict[Path, Found]) -> list[str]:
    """The cells', by row and seed; what all would say alike is said once."""
    done = sum(bool(one.results and one.results.ended) for one in found.values())
    said = []
    if done < len(there.cells):
        said.append(f"UNFINISHED: {done:,} of {len(there.cells):,} cells are measured")
    test_selected: list[str] = []
    for cell in there.cells:
        one = found.get(cell.directory)
        for stamp in stamps(one) if one else ():
            word, _, rest = stamp.partition(":")
            if word == "UNFINISHED":
                continue
            if stamp == TEST_SELECTED:
                test_selected.append(cell.name)
                continue
            said.append(f"{word}: {cell.name}:{rest}")
    return [*said, *([f"{TEST_SELECTED} {'; '.join(test_selected)}"] if test_selected else [])]


def _columns(columns: list[str], lines: list[Line]) -> list[Part]:
    """What the numbers of a column depend on."""
    rows: list[tuple[Cell, ...]] = []
    for column in columns:
        said = {settings_of(outcome) for line in lines for outcome in line.outcomes("last", column)}
        if said:
            rows.append((Cell(column), Cell(said.pop() if len(said) == 1 else "not the same in all rows")))
    return [Grid("How each column was measured", ("column", "settings"), tuple(rows), words=(1,))] if rows else []


def _cells(there: There, found: dict[Path, Found]) -> Grid:
    """What each number is of, and what is not there yet."""
    rows: list[tuple[Cell, ...]] = []
    for cell in there.cells:
        recipe, one = cell.row.recipe, found.get(cell.directory)
        time = seconds(one.results.seconds) if one and one.results and one.results.seconds else "·"
        texts = cell.row.name, str(recipe.seed), _state(cell, one), time, recipe.digest()[:12]
        rows.append(tuple(map(Cell, texts)))
    return Grid("", ("row", "seed", "state", "trained in", "digest"), tuple(rows), words=(2,))


def _state(cell: TableCell, found: Found | None) -> str:
    results = found and found.results
    if found is None:
        return "not begun"
    if results and results.ended:
        return "diverged" if results.diverged else "measured"
    if found.failure:
        return "failed"
    trained = f"epoch {len(found.epochs):,} of {cell.row.recipe.schedule.epochs:,}"
    return f"{trained}, measured in part" if results and results.measured else trained


def _figures(
    there: There, title: str, columns: list[str], lines: list[Line], found: dict[Path, Found], figures: Path
) -> list[Part]:
    rows = [
        (line.name, [found[place].epochs for place in line.directories if place in found and found[place].epochs])
        for line in lines
    ]
    drawn = written(
        {"ablation": lambda: dot_plot(title, columns, lines), "row-curves": lambda: row_curves(title, rows)}, figures
    )
    says = {
        "ablation": "The accuracy of each row with its 95% interval; the dashed line is the first row's",
        "row-curves": f"Accuracy on the {_validated_on(there, found)} by epoch, as they are and under PGD",
    }
    if missing := [name for name, begun in rows if not begun]:
        says["row-curves"] += f"; no epoch has ended: {'; '.join(missing)}"
    if there.seeds > 1:
        says["row-curves"] += "; thin lines are single seeds, the thick one is their mean"
    if any(line.paper for line in lines):
        says["ablation"] += "; diamonds are the paper's numbers"
    return [Drawing(path, f"{says[path.stem]}.") for path in drawn if path.suffix == ".png"]


def _validated_on(there: There, found: dict[Path, Found]) -> str:
    """What the curves that there are were seen on."""
    seen = {place for place, one in found.items() if curve(one.epochs, ROBUST)[0]}
    kinds = {cell.row.recipe.validation.on for cell in there.cells if cell.directory in seen}
    return " or ".join(f"{'test' if kind == 'test' else 'validation'} images" for kind in sorted(kinds))


def _diagnosis(there: There, found: dict[Path, Found]) -> list[Part]:
    """A line a cell that has been diagnosed."""
    rows: list[tuple[Cell, ...]] = []
    for cell in there.cells:
        one = found.get(cell.directory)
        if not one or not one.diagnosis:
            continue
        checks = one.diagnosis.diagnosis.checks
        failed = "; ".join(check.name for check in checks if check.passed is False)
        tried = sum(check.passed is not None for check in checks)
        rows.append((Cell(cell.name), Cell(failed or "none"), Cell(str(tried)), Cell(f"{one.diagnosis.diagnosis.n:,}")))
    return [Grid("Diagnosed", ("row", "failed", "checks", "images"), tuple(rows), words=(1,))] if rows else []


def _recipes(there: There) -> list[Part]:
    """The first row's in full, and what the others change in it."""
    first, *others = there.table.rows
    parts: list[Part] = [Listing(tomli_w.dumps(first.recipe.resolved()), "toml")]
    rows = tuple((Cell(row.name), _changes(first, row)) for row in others)
    if rows:
        title = f"What the other rows change in the recipe of {first.name}"
        parts.append(Grid(title, ("row", "changes"), rows, words=(1,)))
    return parts


def _changes(first: Row, row: Row) -> Cell:
    """But for their seeds, of which each has several."""
    differ = {key: own for key, (_, own) in changes(first.recipe, row.recipe).items() if key != "seed"}
    fields = tuple(f"{key} = {shown(own)}" for key, own in differ.items())
    return Cell("1 field" if len(fields) == 1 else f"{len(fields)} fields", fields)


def again(there: There) -> str:
    """The commands that give it once more, for a shell."""
    out = shlex.quote(str(there.directory.parent))
    if there.name is None:
        return f"advmix report {shlex.quote(str(there.directory))}"
    words = [shlex.quote(there.name), "--seeds", str(there.seeds)]
    words += [word for row in there.rows for word in ("--rows", shlex.quote(row))]
    words += [word for setting in there.table.settings for word in ("--set", shlex.quote(setting))]
    line = " ".join(words)
    return f"advmix ablate {line} --out NEW_DIRECTORY\nadvmix report {line} --out {out}"
