"""How commands speak: results on the standard output, progress and problems on the standard error."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from vidformers.progress import Progress, no_progress


SECONDS_BETWEEN_LINES = 5.0
"""How often progress is told where there is no terminal to draw bars on."""

output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print results as JSON, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but results and problems.")]


@dataclass(frozen=True)
class Terminal:
    """What a command prints, and where.

    Attributes:
        json: results are JSON, one object a line, and nothing else is on the standard output.
        quiet: neither notes nor progress.
        progress: called with an activity, how much of it is done, and its whole.
        aside: clears the bars away while something is printed.
    """

    json: bool = False
    quiet: bool = False
    progress: Progress = no_progress
    aside: Callable[[], AbstractContextManager] = nullcontext

    def result(self, record: Mapping[str, Any], *shown: RenderableType) -> None:
        """Print a result: as `record` where JSON is asked for, otherwise as it is to be shown."""
        with self.aside():
            if self.json:
                typer.echo(json.dumps(record))
            else:
                output.print(*shown, sep="\n")

    def note(self, text: str) -> None:
        """Print a line about what was done, in rich's markup."""
        if not self.quiet and not self.json:
            with self.aside():
                output.print(text)

    def problem(self, text: str) -> None:
        """Print a line about something that went wrong while the rest goes on."""
        errors.print(f"[red]✗[/red] {escape(text)}")


@contextmanager
def terminal(*, json: bool = False, quiet: bool = False) -> Iterator[Terminal]:
    """Where a command prints while it runs. What the user can mend ends it as a message, with exit status 1."""
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        if quiet:
            yield Terminal(json, quiet)
        elif errors.is_terminal:
            with _Bars() as bars:
                yield Terminal(json, quiet, bars.update, bars.aside)
        else:
            yield Terminal(json, quiet, Lines().update)
    except (OSError, ValueError, MemoryError, ModuleNotFoundError, NotImplementedError) as error:
        errors.print(f"[red]Error:[/red] {escape(str(error))}")
        raise typer.Exit(1) from error
    finally:
        if shows_bars:
            logging.enable_progress_bar()


class _Rate(ProgressColumn):
    """How many are done in a second, or how many seconds one takes."""

    def render(self, task: Task) -> Text:
        return Text(in_words(task.finished_speed or task.speed), style="progress.data.speed")


def in_words(rate: float | None) -> str:
    """A rate for people: "12.5/s", "4.2 s each", or nothing where it is not known."""
    if not rate:
        return ""
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


class _Bars:
    """A bar for each activity."""

    def __init__(self) -> None:
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate()
        columns = (*columns, TimeRemainingColumn(elapsed_when_finished=True))
        self.bars = RichProgress(*columns, console=errors, redirect_stdout=False)
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> "_Bars":
        self.bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bars.stop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Without bars while the block prints to the same terminal."""
        self.bars.stop()
        try:
            yield
        finally:
            self.bars.start()

    def update(self, activity: str, done: int, total: int) -> None:
        """Tell how much of an activity is done."""
        if activity not in self.tasks:
            self.tasks[activity] = self.bars.add_task(escape(activity), total=total)
        self.bars.update(self.tasks[activity], completed=done, total=total)


class Lines:
    """A line about an activity every few seconds, for logs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.started: dict[str, float] = {}
        self.told: dict[str, float] = {}

    def update(self, activity: str, done: int, total: int) -> None:
        """Tell how much of an activity is done, unless that was told a moment ago."""
        now = self.clock()
        start = self.started.setdefault(activity, now)
        if now - self.told.get(activity, start) < SECONDS_BETWEEN_LINES:
            return
        self.told[activity] = now
        rate = done / (now - start)
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        errors.print(f"{escape(activity)}: {done} of {total}, {in_words(rate) or 'none yet'}{left}")
