"""Progress: plain lines off a terminal, bars in one, and text that is never taken for markup."""

import io

import pytest
from rich.console import Console

from advmix_cli.report.progress import watcher


def shown(terminal, what, note="n"):
    stream = io.StringIO()
    with watcher(Console(file=stream, width=200, force_terminal=terminal, color_system=None)) as watch:
        watch.begin(what, 1200, "batches")
        watch.advance(600, note)
        watch.say(f"said {what}")
        watch.epoch(f"epoch 1/2: {note}")
        watch.advance(600)
    return stream.getvalue()


def test_off_a_terminal_there_are_only_lines():
    assert shown(False, "training") == "training: 1,200 batches\nsaid training\nepoch 1/2: n\n"


def test_a_terminal_has_a_bar_with_the_last_figures():
    text = shown(True, "training", "loss 0.5")
    assert "training" in text
    assert "1200/1200" in text
    assert "loss 0.5" in text
    assert "said training" in text


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("what", ["[red]x[/red]", "[/]", "[/x] y", "a:100:b"])
def test_a_title_is_shown_literally(terminal, what):
    text = shown(terminal, what, what)
    assert f"said {what}" in text
    assert f"{what}: 1,200 batches" in text or (terminal and f"{what} " in text)
    assert f"epoch 1/2: {what}" in text
