"""`advmix report`."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from advmix_cli.commands.console import say
from advmix_cli.commands.options import Settings
from advmix_cli.errors import AdvmixError, UsageError

if TYPE_CHECKING:
    from advmix_cli.document.parts import Document


class Form(StrEnum):
    """Of a report."""

    HTML = "html"
    MARKDOWN = "markdown"
    LATEX = "latex"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of a file that it is written to."""
        return {Form.HTML: (".html", ".htm"), Form.MARKDOWN: (".md", ".markdown"), Form.LATEX: (".tex",)}[self]


def report(
    place: Annotated[
        str,
        typer.Argument(metavar="RUN|TABLE", help="A run directory, a directory of cells, or a table as ablate has it."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the cells of a table lie. By default runs.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, metavar="N", help="Of each row of a table. By default all there are."),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="ROW", help="Only this row of a table, by its name or number. Can be repeated."),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="HTML goes to a file, the others to stdout.")] = Form.HTML,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write it there. By default report.html in the directory; of an edit or a part, a name of its own.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures",
            metavar="DIR",
            help="Draw them there. By default figures in the directory, named as the report; for stdout, not at all.",
        ),
    ] = None,
    settings: Settings = None,
) -> None:
    """Put what a run or a table has found into one document, with figures and recipes. It reads files only."""
    if output is not None and output.is_dir():
        raise UsageError(f"--output {output}: a directory; name a file in it")
    if output is not None and output.suffix.lower() not in form.suffixes:  # it could be a file of the run
        raise UsageError(f"--output {output}: a report as {form} ends in {' or '.join(form.suffixes)}")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise UsageError(f"--figures {figures}: not a directory")
    subject = _run(Path(place), out, seeds, rows, settings) or _table(place, out, seeds, rows or [], settings or [])
    if figures is None and (form is Form.HTML or output):
        figures = subject.directory / f"figures{subject.end}"
    its = subject.document(figures)
    beside = output.parent if output else Path()
    match form:
        case Form.HTML:
            from advmix_cli.document.html import to_html

            _write(to_html(its), output or subject.directory / f"report{subject.end}.html")
        case Form.MARKDOWN:
            from advmix_cli.document.markdown import to_markdown

            _write(to_markdown(its, beside), output)
        case Form.LATEX:
            from advmix_cli.document.latex import to_latex

            _write(to_latex(its, beside), output)
    if figures is None:
        say("no figures are drawn: --figures DIR draws them there")
    for message in its.damage:
        say(f"warning: {message}")
    if its.damage:
        raise AdvmixError("not all of its files can be read; the report says which, and has the rest")


class _Subject(NamedTuple):
    """What a report is of. `end`: of the names of what is written into `directory`, so that a report does not take the
    place of one of other cells; `document` draws into a directory, if it is given one."""

    directory: Path
    end: str
    document: "Callable[[Path | None], Document]"


def _run(
    directory: Path, out: Path | None, seeds: int | None, rows: Sequence[str] | None, settings: Sequence[str] | None
) -> _Subject | None:
    """None if there is none."""
    if not any((directory / name).is_file() for name in ("recipe.toml", "results.json", "metrics.jsonl")):
        return None
    for flag, value in (("--out", out), ("--seeds", seeds), ("--rows", rows), ("--set", settings)):
        if value:
            raise UsageError(f"{flag} has no meaning for a run directory: it is of a table")
    from advmix_cli.document.run import document, look

    return _Subject(directory, "", partial(document, look(directory)))


def _table(place: str, out: Path | None, seeds: int | None, rows: Sequence[str], settings: Sequence[str]) -> _Subject:
    from advmix_cli.document.cells import in_directory, is_table_directory, named
    from advmix_cli.document.table import document

    if is_table_directory(Path(place)):
        for flag, value in (("--out", out), ("--seeds", seeds), ("--rows", rows), ("--set", settings)):
            if value:
                raise UsageError(f"{flag} has no meaning for a directory of cells: name the table, as for ablate")
        there = in_directory(Path(place))
    else:
        if Path(place).is_dir():
            raise UsageError(f"{place} holds neither a run nor the cells of a table")
        there = named(place, out or Path("runs"), settings, rows, seeds)
    return _Subject(there.directory, f"-{there.part}" if there.part else "", partial(document, there))


def _write(text: str, path: Path | None) -> None:
    """To stdout without a path."""
    from advmix_cli.files import write_atomically

    if path is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(path, text)
        say(f"report: {path}")
