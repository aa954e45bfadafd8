"""How commands speak: results alone on the standard output, progress as bars or as lines."""

import io
import json

import pytest
import typer
from rich.console import Console

from vidformers.commands import console


@pytest.fixture
def streams(monkeypatch) -> dict[str, io.StringIO]:
    """Where the two outputs go, neither of them a terminal."""
    places = {"output": io.StringIO(), "errors": io.StringIO()}
    for name, place in places.items():
        monkeypatch.setattr(console, name, Console(file=place, highlight=False, soft_wrap=True))
    monkeypatch.setattr(console.typer, "echo", lambda text: print(text, file=places["output"]))
    return places


def test_results_are_on_the_standard_output_and_the_rest_is_not(streams):
    with console.terminal() as say:
        say.result({"a": 1}, "shown")
        say.note("noted")
        say.problem("broken [bold]")
    assert streams["output"].getvalue() == "shown\nnoted\n"
    assert streams["errors"].getvalue() == "✗ broken [bold]\n"


def test_json_and_quiet(streams):
    with console.terminal(json=True) as say:
        say.result({"a": 1}, "shown")
        say.note("noted")
    with console.terminal(quiet=True) as say:
        say.result({"a": 2}, "shown")
        say.note("noted")
        say.progress("counting", 1, 2)
    first, second = streams["output"].getvalue().splitlines()
    assert json.loads(first) == {"a": 1} and second == "shown" and streams["errors"].getvalue() == ""


def test_what_the_user_can_mend_is_a_message(streams):
    with pytest.raises(typer.Exit), console.terminal():
        raise ValueError("expected [this]")
    assert streams["errors"].getvalue() == "Error: expected [this]\n"
    with pytest.raises(AssertionError), console.terminal():
        raise AssertionError


@pytest.mark.parametrize("shown", [True, False])
def test_bars_of_transformers_are_afterwards_as_before(shown, monkeypatch):
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", shown)
    with console.terminal():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() == shown


def test_a_line_every_few_seconds_without_a_terminal(streams):
    times = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    lines = console.Lines(clock=lambda: next(times))
    for done in range(5):
        lines.update("embedding", 10 * done, 100)
    assert streams["errors"].getvalue().splitlines() == [
        "embedding: 20 of 100, 3.3/s, 24 s left",
        "embedding: 40 of 100, 3.3/s, 18 s left",
    ]


def test_bars_on_a_terminal_say_how_many_and_how_long(monkeypatch):
    """They are on the standard error, and a result goes past them to the standard output."""
    drawn, printed = io.StringIO(), io.StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=120)
    monkeypatch.setattr(console, "errors", terminal)
    monkeypatch.setattr(console, "output", Console(file=printed))
    with console.terminal() as say:
        say.progress("embedding", 3, 12)
        say.result({}, "shown")
        say.progress("embedding", 12, 12)
    assert "embedding" in drawn.getvalue() and "12/12" in drawn.getvalue() and printed.getvalue() == "shown\n"


@pytest.mark.parametrize(("rate", "words"), [(None, ""), (12.34, "12.3/s"), (0.25, "4.0 s each")])
def test_rates(rate, words):
    assert console.in_words(rate) == words
