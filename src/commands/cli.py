"""The command `vidformers`: convert original checkpoints, take them back, check and list them; use models on videos.

Commands import what they work with when they run, so that `vidformers --help` is quick.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table


app = typer.Typer(help="Video foundation models for Transformers.", no_args_is_help=True, add_completion=False)
console = Console()
errors = Console(stderr=True)


class Dtype(str, Enum):
    """Types of weights on disk."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Family = Annotated[str | None, typer.Option(help="Family of the checkpoint; found from its tensors by default.")]
Preset = Annotated[str | None, typer.Option(help="Name of a published checkpoint: see `vidformers list`.")]
Probe = Annotated[Path | None, typer.Option(help="File of a classifier head.")]
OriginalRepo = Annotated[
    Path | None, typer.Option(help="Checkout of the original code, to run beside the converted model.")
]


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Original checkpoint: .pt, .pth, .npz or .safetensors.")],
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    family: Family = None,
    preset: Preset = None,
    probe: Probe = None,
    probe_index: Annotated[int, typer.Option(help="Which head to take where the probe's file holds several.")] = 0,
    checkpoint_key: Annotated[str | None, typer.Option(help="Entry of the file to take, such as `encoder`.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names: JSON, or text with one a line.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Vocabulary of the text tower, such as a tokenizer.json.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Type of the weights.")] = Dtype.float32,
    model_class: Annotated[
        str | None,
        typer.Option(help="Class to make where it isn't the file's own, such as a classifier to fine-tune."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Field of the configuration; repeatable.")
    ] = None,
    original_repo: OriginalRepo = None,
    push_to_hub: Annotated[str | None, typer.Option(metavar="REPO", help="Upload the directory there.")] = None,
) -> None:
    """Write an original checkpoint as a directory for from_pretrained, and check it."""
    with _reported_errors():
        from . import convert as job

        with _progress_bars() as progress:
            reports = job.convert(
                source,
                out,
                family=family,
                preset=preset,
                probe=probe,
                checkpoint_key=checkpoint_key,
                probe_index=probe_index,
                tokenizer=tokenizer,
                labels=labels,
                dtype=dtype.value,
                model_class=model_class,
                settings=set_ or [],
                original_repo=original_repo,
                hub_repo=push_to_hub,
                progress=progress,
            )
        _show(reports)
        console.print(f"Wrote [bold]{escape(str(out))}[/bold].")
        if push_to_hub:
            console.print(f"Uploaded to {job.push(out, push_to_hub)}")


@app.command()
def reverse(
    directory: Annotated[Path, typer.Argument(help="Directory of a converted model.")],
    out: Annotated[Path, typer.Argument(help="Checkpoint to write (.pt).")],
    probe: Annotated[Path | None, typer.Option(help="File to write the classifier head to.")] = None,
) -> None:
    """Write a directory's weights as the original files hold them."""
    with _reported_errors():
        from vidformers.conversion import reverse_directory

        with _progress_bars():
            not_given = reverse_directory(directory, out, probe_out=probe)
        console.print(f"Wrote [bold]{escape(str(out))}[/bold]" + (f" and {escape(str(probe))}." if probe else "."))
        for name, reason in not_given.items():
            console.print(f"Not given back: {name} ({reason}).")


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Directory of a converted model.")],
    source: Annotated[Path | None, typer.Option(help="Original checkpoint that it must hold bit for bit.")] = None,
    probe: Probe = None,
    recording: Annotated[
        Path | None, typer.Option(help="Folder with inputs.safetensors and outputs.safetensors to reproduce.")
    ] = None,
    original_repo: OriginalRepo = None,
) -> None:
    """Check a directory: its files, its numbers and, where they are given, its originals."""
    with _reported_errors():
        from vidformers.conversion import verify_directory

        with _progress_bars() as progress:
            reports = verify_directory(
                directory,
                source=source,
                probe=probe,
                recording=recording,
                original_repo=original_repo,
                progress=progress,
            )
        _show(reports)
        if not all(report.passed for report in reports):
            raise typer.Exit(1)


class StoredAs(str, Enum):
    """Types of the numbers in a table."""

    float32 = "float32"
    float16 = "float16"


class Pool(str, Enum):
    """What is kept of a video."""

    auto = "auto"
    joint = "joint"
    mean = "mean"
    none = "none"


@app.command()
def embed(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders to search for them.")],
    model: Annotated[str, typer.Option(help="Directory of a model, or name of a repository on the Hub.")],
    out: Annotated[
        str, typer.Option(help="A table, .lance; a file, .safetensors, .npz or .parquet; with a layout, a folder.")
    ],
    window: Annotated[
        str | None,
        typer.Option(help="Cut videos into windows: 4s, 16f (frames), or a convention such as videomae_v2_thumos."),
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="From one window to the next, such as 2s; by default a window's length.")
    ] = None,
    edge: Annotated[
        str | None, typer.Option(help="A window beyond the end: keep (cut), drop, pad or move_back.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="npy: a .npy and a .json a video, in a folder.")] = None,
    pool: Annotated[
        Pool,
        typer.Option(
            help="The embedding that is compared with texts (joint), the mean of a video's tokens, or all of them "
            "(none); by default the first where the model has it, else the mean."
        ),
    ] = Pool.auto,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to take of a video or window; the model's number by default.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows of a batch; by default what fits.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda:1; a GPU by default, where there is one.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Type to compute in.")] = Dtype.float32,
    stored_as: Annotated[StoredAs, typer.Option(help="Type of the numbers in a new table.")] = StoredAs.float32,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="For a table: tell changed files by content, not by size and time.")
    ] = False,
) -> None:
    """Write the features of videos. Those that can't be read are named, and the exit status is 1 then.

    A table is gone on with: what it holds already is left.
    """
    with _reported_errors():
        import torch

        from vidformers.inference.windows import Windows

        from .embed import embed_files, embed_into_table

        if window is None and (step, edge) != (None, None):
            raise ValueError("--step and --edge say how windows follow each other: give --window too.")
        windows = Windows.preset("whole") if window is None else Windows.parse(window, step, edge=edge)

        options: dict[str, Any] = {"stored_as": stored_as.value, "checksum": checksum}
        is_table = out.rstrip("/").endswith(".lance")
        if not is_table:
            options = {"layout": layout}
        elif layout:
            raise ValueError("--layout is for folders, and a table is none: leave it out.")
        with _progress_bars() as progress:
            done, total = (embed_into_table if is_table else embed_files)(
                videos,
                model,
                out,
                windows=windows,
                pool=pool.value,
                num_frames=num_frames,
                batch_size=batch_size,
                device=device,
                dtype=getattr(torch, dtype.value),
                progress=progress,
                on_failure=lambda failure: _show_failure(f"{failure.name}: {failure.reason}"),
                **options,
            )
        if done or is_table:
            text = f"Wrote the features of {done} of {total} videos to [bold]{escape(out)}[/bold]."
            console.print(text if not is_table else f"[bold]{escape(out)}[/bold] holds {done} of {total} videos.")
        if done < total:
            raise typer.Exit(1)


@app.command()
def info(
    table: Annotated[str, typer.Argument(help="Table of embeddings, .lance.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a table of embeddings holds, and what it was made with."""
    with _reported_errors():
        import json

        from .library import describe

        found = describe(table)
        if as_json:
            typer.echo(json.dumps(found))
            return
        rows = Table(box=None, show_header=False)
        for name, value in found.items():
            rows.add_row(name, escape(json.dumps(value) if isinstance(value, dict) else str(value)))
        console.print(rows)


@app.command()
def export(
    table: Annotated[str, typer.Argument(help="Table of embeddings, .lance.")],
    out: Annotated[str, typer.Argument(help="File: .safetensors, .npz or .parquet; with a layout, a folder.")],
    layout: Annotated[str | None, typer.Option(help="npy: a .npy and a .json a video, in a folder.")] = None,
) -> None:
    """Write the rows of a table to files that other programs read."""
    with _reported_errors():
        from . import library

        with _progress_bars() as progress:
            count = library.export(table, out, layout, progress)
        console.print(f"Wrote {count} videos to [bold]{escape(out)}[/bold].")


@app.command()
def classify(
    video: Annotated[Path, typer.Argument(help="Video file.")],
    labels: Annotated[str, typer.Option(help='What the video may show, in words, such as "a dog, a cat".')] = "",
    model: Annotated[
        str | None, typer.Option(help="Directory of a video-text model; by default a toy model for moving shapes.")
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to take of the video; the model's number by default.")
    ] = None,
) -> None:
    """Tell which of several labels fits a video best."""
    with _reported_errors():
        from transformers.utils import logging

        from .classify import Classifier, read_label_list

        texts = read_label_list(labels)
        logging.disable_progress_bar()
        try:
            shares = Classifier(model, num_frames).classify(video, texts)
        finally:
            logging.enable_progress_bar()
        if model is None:
            console.print('This is a toy model for moving shapes, such as "a red circle moves left".')
        console.print(share_table(shares))


def share_table(shares: dict[str, float]) -> Table:
    """A bar and a percentage for each label."""
    table = Table(box=None, show_header=False)
    for label, share in shares.items():
        table.add_row(escape(label), ProgressBar(total=1.0, completed=share, width=30), f"{share:6.1%}")
    return table


@app.command()
def finetune(
    folder: Annotated[Path, typer.Argument(help="A folder of video files for each class, named as the class is.")],
    model: Annotated[str, typer.Option(help="Directory or name on the Hub of the model to start from.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the clips.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips of a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="At its highest, after a tenth of the steps.")] = 5e-5,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to take of a clip; the model's number by default.")
    ] = None,
    validation_share: Annotated[float, typer.Option(help="Share of every class to measure with.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides the split, the order and the new head.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode; 0 to decode in this one.")] = 2,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be decoded.")
    ] = False,
) -> None:
    """Train a video classifier on a folder of clips, with the Trainer of transformers."""
    with _reported_errors():
        from .finetune import prepare, train

        task = prepare(
            folder,
            model,
            num_frames=num_frames,
            validation_share=validation_share,
            seed=seed,
            skip_unreadable=skip_unreadable,
        )
        for reason in task.unreadable:
            _show_failure(f"left out: {reason}")
        counts = f"{len(task.training)} clips to train on, {len(task.validation)} to measure with"
        console.print(f"{len(task.classes)} classes, {counts}")
    options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    accuracy = train(task, out, **options, seed=seed, workers=workers)["eval_accuracy"]
    console.print(f"Accuracy {accuracy:.1%} on the clips kept from training.")
    console.print(f"Wrote [bold]{escape(str(out))}[/bold].")


@app.command("list")
def list_presets() -> None:
    """List the families and the published checkpoints that can be converted."""
    from .listing import list_checkpoints

    for listing in list_checkpoints():
        table = Table(title=listing.title, title_justify="left")
        for column in ("preset", "layers", "input"):
            table.add_column(column, no_wrap=True)
        table.add_column("made from", overflow="fold")
        for entry in listing.checkpoints:
            files = "\n".join((entry.form, *entry.files)) if entry.files else f"{entry.form}: see the docs"
            table.add_row(entry.preset, entry.size, entry.input, files)
        console.print(table)


def _show_failure(text: str) -> None:
    """One line for a file that could not be used."""
    errors.print(f"[red]✗[/red] {escape(text)}", highlight=False, soft_wrap=True)


def _show(reports: list) -> None:
    """One line for a comparison that passed, the whole of one that failed."""
    for report in reports:
        if report.passed:
            worst = report.summary["worst"]
            console.print(f"[green]✓[/green] {report.title}: {len(report.stages)} compared, ", end="")
            console.print(f"worst relative difference {worst['relative']:.1e}", highlight=False)
        else:
            errors.print(f"[red]✗[/red] {escape(str(report))}", highlight=False)


@contextmanager
def _reported_errors() -> Iterator[None]:
    """Print what the user can mend as a message instead of a traceback, and exit with status 1."""
    try:
        yield
    except (OSError, ValueError, ModuleNotFoundError) as error:
        errors.print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def _progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each activity that reports progress, instead of those of transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=console) as bars:

        def update(activity: str, done: int, total: int) -> None:
            if activity not in tasks:
                tasks[activity] = bars.add_task(activity, total=total)
            bars.update(tasks[activity], completed=done, total=total)

        try:
            yield update
        finally:
            logging.enable_progress_bar()


def main() -> None:
    """Run the command."""
    app()
