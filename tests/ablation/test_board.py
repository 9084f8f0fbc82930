"""Runs at a glance: what fits a terminal, and what is left out of it."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made import write_run
from rich.console import Console

from advmix_cli.ablation import board as module
from advmix_cli.ablation.board import Entry, LiveBoard, board, onlooker, record, summary
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.eta import Eta
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


def test_what_has_ended_is_not_looked_at_again(tiny, tmp_path):
    write_run(tmp_path / "a", tiny("evaluators=[]", "schedule.epochs=5"), [])
    look = onlooker([("a", tiny("evaluators=[]", "schedule.epochs=5"), tmp_path / "a")])
    assert [one.state for one in look()] == ["done"]
    (tmp_path / "a" / "results.json").write_text("{")
    assert [one.state for one in look()] == ["done"]


def test_what_runs_comes_first_and_then_what_failed_what_comes_next_what_was_stopped_and_the_last_that_are_done(tiny):
    states = ["done", "stopped", "done", "waiting", "running", "waiting", "waiting", "waiting", "failed", "done"]
    found = entries(tiny, *states)
    order = [4, 8, 3, 5, 6, 1, 9, 2, 0, 7]
    for room in range(1, len(states) + 1):
        assert module._most_telling(found, room) == [found[number] for number in sorted(order[:room])]


def test_a_run_that_is_measured_says_how_far_it_is_and_only_one_that_runs_when_it_will_be_done(tiny):
    (one, other) = entries(tiny, "running", "stopped")
    trained = replace(one.standing, trained=True, found=(Found("last", "a", 0.5, 1.0), Found("best", "a", 0.25, 1.0)))
    shown = module._cells(replace(one, standing=trained), Eta(60.0, False))
    assert (shown[""], shown["eta"], shown["measured"]) == ("measuring 2/2", "1:00", "last: a 50.0; best: a 25.0")
    assert (module._cells(one, None)[""], module._cells(other, Eta(60.0, False))["eta"]) == ("epoch 12/20", "")


def test_where_nothing_is_left_no_time_is_said(tiny):
    assert summary(entries(tiny, "done", "done"), 1) == "2 of 2 runs done"
    assert not any("runs done" in line for line in shown(entries(tiny, "done"), 1, 100))


def test_a_record_has_the_time_of_an_epoch_and_that_since_the_last(tiny):
    (one,) = entries(tiny, "running")
    found = record(one, Eta(60.0, True))
    assert (found["seconds_per_epoch"], found["seconds_since_last_line"]) == (3661.0, 1.0)
    assert (found["eta_seconds"], found["eta_at_least"]) == (60.0, True)
