"""Runs at a glance: what fits a terminal, and what is left out of it."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from advmix_cli.ablation import board as module
from advmix_cli.ablation.board import Entry, LiveBoard, board, onlooker
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.standing import Found, Standing
from advmix_cli.locks import held
from advmix_cli.recipe.table import Row, Table

LINE = {"loss": 2.12345, "validation_accuracy": 0.5, "validation_pgd_accuracy": 1.0}
NAMES = ("Attack", "Mix-then-Attack", "Attack-then-Mix", "Ours, frozen λ, shared δ", "Ours, frozen λ", "x", "Ours")


def entries(tiny, *states):
    found = []
    for number, state in enumerate(states):
        stands = Standing(state, 20, epoch=12, line=LINE, since=1.0, pace=3661.0, wanted=2)
        if state == "done":
            stands = Standing(state, 20, epoch=20, line=LINE, found=(Found("last", "PGD20", 0.704, 1.0),), wanted=1)
        recipe = tiny(f"seed={number // 7}")
        found.append(Entry(NAMES[number % 7], Path(f"run {number}"), recipe, stands))
    return found


def shown(found, jobs, width, height=None):
    stream = io.StringIO()
    Console(file=stream, width=width).print(board("A title " * 20, found, jobs, width, height))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 20), (60, 10)])
def test_21_cells_fit_a_terminal(tiny, width, height):
    states = ["done"] * 8 + ["failed"] + ["running"] * 2 + ["waiting"] * 10
    lines = shown(entries(tiny, *states), 2, width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height - 1  # for the bar below
    text = "\n".join(lines)
    assert text.count("epoch 12/20   > 8:08:07") == min(2, height - 7)
    assert "8 of 21 runs done · eta > 2 d 0 h · 1 failed · 2 running" in text
    assert ("2.1235    50.0   100.0" in text) == (width >= 78)
    assert "100.0" in text
    if height == 40:
        assert "not shown" not in text
    if height == 24:
        assert "not shown: 4 waiting" in text
    if height == 10:
        assert text.count(" failed") == 2
        assert "not shown: 8 done, 10 waiting" in text


def test_what_was_measured_stands_where_there_is_room(tiny):
    found = entries(tiny, "done", "waiting")
    narrow = shown(found, 1, 70)
    assert "measured" not in "\n".join(narrow[:-1])
    (needs,) = re.fullmatch(r"not shown: measured \(needs (\d+) columns, or --json\)", narrow[-1]).groups()
    assert "measured" not in "\n".join(shown(found, 1, 70, 24))
    assert not any(line.endswith("PGD20 70.4") for line in shown(found, 1, int(needs) - 1))
    enough = shown(found, 1, int(needs))
    assert any(line.endswith("100.0   PGD20 70.4") for line in enough)
    assert max(map(len, enough)) == int(needs)


def test_wide_letters_take_the_columns_that_they_take(tiny):
    (one,) = entries(tiny, "done")
    wide = Found("last", "攻撃" * 6, 0.704, 1.0)
    named = Entry("攻撃" * 4, one.directory, one.recipe, replace(one.standing, found=(wide,)))
    _title, *rest = shown([named], 1, 100)
    text = "\n".join(rest)
    assert "攻撃" * 6 + " 70.4" in text
    assert "…" not in text


def test_names_are_shown_as_they_are_and_cut_before_any_number_is(tiny):
    (one,) = entries(tiny, "running")
    named = Entry("[red]" + "n" * 60 + "\x1b", one.directory, one.recipe, one.standing)
    (line,) = (line for line in shown([named], 1, 60) if line.startswith("[red]nn"))
    assert "…" in line
    assert line.endswith("epoch 12/20   > 8:08:07   100.0")


def test_what_has_ended_is_looked_at_once_and_what_was_started_is_said_to_run(tiny, tmp_path):
    look = onlooker([("a", tiny(), tmp_path / "a"), ("b", tiny("seed=1"), tmp_path / "b")])
    assert [one.state for one in look(())] == ["waiting", "waiting"]
    assert [one.state for one in look({tmp_path / "b"})] == ["waiting", "running"]
    with held(tmp_path / "a"):
        assert [one.state for one in look(())] == ["running", "waiting"]
    (tmp_path / "a" / "results.json").write_text("{")
    assert [one.state for one in look(())] == ["damaged", "waiting"]


def test_what_is_looked_at_while_it_is_drawn_is_shown_next(tiny, tmp_path, monkeypatch):
    """The board is drawn by a thread of rich's."""
    table = Table("t", "T", (Row("a", tiny(), {}),))
    (cell,) = cells(table, 1, tmp_path)
    live = LiveBoard("T", [cell], 1)
    live.look()
    drawn = []

    def slow(title, entries, *rest):
        drawn.append([one.state for one in entries])
        if len(drawn) == 1:
            live.started = frozenset([cell.directory])
            live.look()
        return board(title, entries, *rest)

    monkeypatch.setattr(module, "board", slow)
    console = Console(file=io.StringIO(), width=80)
    for _ in range(3):
        console.print(live)
    assert drawn == [["waiting"], ["running"]]
    console.size = (60, 20)
    console.print(live)
    assert len(drawn) == 3
