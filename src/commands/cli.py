"""The command `vidformers`: convert original checkpoints, take them back, check and list them; use models on videos.

Commands import what they work with when they run, so that `vidformers --help` is quick.
"""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from . import cli_training
from .console import Json, Quiet, Terminal, output, terminal
from .options import ComputeDtype, Device, Dtype, Family, NumFrames, OriginalRepo, Preset, Probe


if TYPE_CHECKING:
    from vidformers.inference.embedder import Failure
    from vidformers.inference.search import Span

    from .classify import Scores


app = typer.Typer(help="Video foundation models for Transformers.", no_args_is_help=True)


def show_version(wanted: bool) -> None:
    """Print the version and end, if that is wanted."""
    if wanted:
        from vidformers import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Video foundation models for Transformers."""


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
    keep_labels: Annotated[
        Path | None, typer.Option(help="Names of the classes to keep of these, such as Kinetics-400's of K710's.")
    ] = None,
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
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an original checkpoint as a directory for from_pretrained, and check it."""
    with terminal(json=json, quiet=quiet) as say:
        from . import convert as job

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
            keep_labels=keep_labels,
            dtype=dtype.value,
            model_class=model_class,
            settings=set_ or [],
            original_repo=original_repo,
            hub_repo=push_to_hub,
            progress=say.progress,
        )
        show(say, reports)
        say.note(f"Wrote [bold]{escape(str(out))}[/bold].")
        if push_to_hub:
            say.note(f"Uploaded to {job.push(out, push_to_hub)}")


@app.command()
def reverse(
    directory: Annotated[Path, typer.Argument(help="Directory of a converted model.")],
    out: Annotated[Path, typer.Argument(help="Checkpoint to write (.pt).")],
    probe: Annotated[Path | None, typer.Option(help="File to write the classifier head to.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write a directory's weights as the original files hold them."""
    with terminal(quiet=quiet) as say:
        from vidformers.conversion import reverse_directory

        left_out = reverse_directory(directory, out, probe_out=probe, progress=say.progress)
        say.note(f"Wrote [bold]{escape(str(out))}[/bold]" + (f" and {escape(str(probe))}." if probe else "."))
        for name, reason in left_out.items():
            say.note(f"The file lacks {escape(name)}, which the original holds: {escape(reason)}.")


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Directory of a converted model.")],
    source: Annotated[Path | None, typer.Option(help="Original checkpoint that it must hold bit for bit.")] = None,
    probe: Probe = None,
    recording: Annotated[
        Path | None, typer.Option(help="Folder with inputs.safetensors and outputs.safetensors to reproduce.")
    ] = None,
    original_repo: OriginalRepo = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a directory: its files, its numbers and, where they are given, its originals."""
    with terminal(json=json, quiet=quiet) as say:
        from vidformers.conversion import verify_directory

        reports = verify_directory(
            directory,
            source=source,
            probe=probe,
            recording=recording,
            original_repo=original_repo,
            progress=say.progress,
        )
        show(say, reports)
        if not all(report.passed for report in reports):
            raise typer.Exit(1)


def show(say: Terminal, reports: list) -> None:
    """One line for a comparison that passed, the whole of one that failed."""
    for report in reports:
        if report.passed:
            worst = report.summary["worst"]["relative"]
            line = f"{report.title}: {len(report.stages)} compared, worst relative difference {worst:.1e}"
            say.result(report.summary, f"[green]✓[/green] {escape(line)}")
        else:
            say.problem(str(report))
            if say.json:
                say.result(report.summary)


class StoredAs(StrEnum):
    """Types of the numbers in a table."""

    float32 = "float32"
    float16 = "float16"


class Pool(StrEnum):
    """What is kept of a video."""

    auto = "auto"
    joint = "joint"
    mean = "mean"
    none = "none"


class Engine(StrEnum):
    """Where videos are embedded."""

    local = "local"
    ray = "ray"


@app.command()
def embed(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders to search for them.")],
    model: Annotated[str, typer.Option(help="Directory of a model, or name of a repository on the Hub.")],
    out: Annotated[
        str, typer.Option(help="A table (.lance) or a file (.safetensors, .npz, .parquet); with --layout, a folder.")
    ],
    window: Annotated[
        str | None,
        typer.Option(help="Cut videos into windows: 4s, 16f (frames), or a convention such as videomae_v2_thumos."),
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Time from one window to the next, such as 2s; by default a window's length.")
    ] = None,
    edge: Annotated[
        str | None,
        typer.Option(help="What becomes of a window that reaches beyond the end: keep (cut), drop, pad or move_back."),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="npy: a folder with a .npy and a .json for each video.")] = None,
    pool: Annotated[
        Pool,
        typer.Option(
            help="The embedding that is compared with texts (joint), the mean of a video's tokens, or all of them "
            "(none); by default the first where the model has it, else the mean."
        ),
    ] = Pool.auto,
    num_frames: NumFrames = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows of a batch; by default what fits.")] = None,
    device: Device = None,
    dtype: ComputeDtype = Dtype.float32,
    stored_as: Annotated[StoredAs, typer.Option(help="Type of the numbers in a new table.")] = StoredAs.float32,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="For a table: tell changed files by content, not by size and time.")
    ] = False,
    engine: Annotated[
        Engine, typer.Option(help="Where to compute: in this process, or on a Ray cluster.")
    ] = Engine.local,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Address of the cluster, such as auto; by default a new one on this machine alone."),
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a worker of the cluster; by default 1 where there are any.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the features of videos.

    Videos that can't be read are named, and the exit status is 1 then. A table gets what it lacks. Processes of
    `accelerate launch` share the videos.
    """
    from vidformers.inference.processes import Processes

    processes = Processes.launched()
    with terminal(json=json, quiet=quiet or processes.rank > 0) as say, processes.joined():
        import torch

        from vidformers.inference.windows import Windows

        from .embed import embed_files, embed_into_table

        if window is None and (step, edge) != (None, None):
            raise ValueError("--step and --edge say how windows follow each other: give --window too.")
        windows = Windows.preset("whole") if window is None else Windows.parse(window, step, edge=edge)
        is_table, failures = out.rstrip("/").endswith(".lance"), {}
        if is_table and layout:
            raise ValueError("--layout is for folders, and a table is none: leave it out.")
        options = {"stored_as": stored_as.value, "checksum": checksum} if is_table else {"layout": layout}
        ray = {"address": ray_address, "gpus_per_worker": gpus_per_worker}
        if engine == Engine.local and any(value is not None for value in ray.values()):
            raise ValueError("--ray-address and --gpus-per-worker say how --engine ray works: give that too.")
        if engine == Engine.ray and processes.total > 1:
            raise ValueError("Ray starts workers of its own: leave the launcher out, or --engine ray.")

        def note_failure(failure: "Failure") -> None:
            failures[failure.name] = failure.reason
            say.problem(f"{failure.name}: {failure.reason}")

        try:
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
                ray=ray if engine == Engine.ray else None,
                processes=processes,
                progress=say.progress,
                on_failure=note_failure,
                **options,
            )
        except KeyboardInterrupt as stop:
            say.problem("Stopped." + (" The same command goes on from here." if is_table or layout else ""))
            raise typer.Exit(130) from stop
        shares = processes.gather((done, total, failures))
        done, total = (sum(share[place] for share in shares) for place in (0, 1))
        failures = {name: reason for share in shares for name, reason in share[2].items()}
        if processes.rank:
            raise typer.Exit(done < total)
        if failures:
            again = "; the same command tries them again" if is_table or layout else ""
            say.problem("\n  ".join([f"Not read to their end{again}:", *failures]))
        if json:
            say.result({"out": out, "videos": total, "done": done, "failures": failures})
        elif is_table:
            say.note(f"[bold]{escape(out)}[/bold] holds {done} of {total} videos to their end.")
        elif done:
            say.note(f"Wrote the features of {done} of {total} videos to [bold]{escape(out)}[/bold].")
        if done < total:
            raise typer.Exit(1)


@app.command()
def info(
    table: Annotated[str, typer.Argument(help="Table of embeddings, .lance.")],
    json: Json = False,
) -> None:
    """Tell what a table of embeddings holds, and what it was made with."""
    with terminal(json=json, quiet=True) as say:
        from .library import describe

        found = describe(table)
        rows = Table(box=None, show_header=False)
        for name, value in found.items():
            rows.add_row(name, escape(str(value)))
        say.result(found, rows)


@app.command()
def extract(
    table: Annotated[str, typer.Argument(help="Table of embeddings, .lance.")],
    out: Annotated[str, typer.Argument(help="File: .safetensors, .npz or .parquet; with --layout, a folder.")],
    layout: Annotated[str | None, typer.Option(help="npy: a folder with a .npy and a .json for each video.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write the rows of a table to files that other programs read."""
    with terminal(quiet=quiet) as say:
        from . import library

        count = library.extract(table, out, layout, say.progress)
        say.note(f"Wrote {count} videos to [bold]{escape(out)}[/bold].")


@app.command()
def search(
    table: Annotated[str, typer.Argument(help="Table of embeddings, .lance.")],
    words: Annotated[
        str | None, typer.Argument(help="What to search for, in words; for tables of video-text models.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="Search for what is like this video.")] = None,
    image: Annotated[Path | None, typer.Option(help="Search for what is like this picture.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Parts of videos to show.")] = 5,
    where: Annotated[
        str | None, typer.Option(help="Condition on the table's columns in SQL: \"video LIKE '%beach%'\".")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Picture of the results to write, .png.")] = None,
    html: Annotated[Path | None, typer.Option(help="Page to write that shows and plays the results.")] = None,
    index: Annotated[
        bool | None,
        typer.Option(
            "--index/--exact",
            help="Use an index, which is made if there is none, or compare all rows; by default the first for large "
            "tables.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now; by default where the table says.")] = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find parts of the videos in a table by words, a video or a picture."""
    with terminal(json=json, quiet=quiet) as say:
        from vidformers.files import check_target

        from .search import Searcher
        from .search_results import add_pictures, write_page, write_sheet

        if sheet and sheet.suffix.lower() != ".png":
            raise ValueError(f"{sheet}: the name of a sheet must end in .png.")
        writers = [(path, write) for path, write in ((sheet, write_sheet), (html, write_page)) if path]
        for path, _ in writers:
            check_target(path)
        searcher = Searcher(table, model=model, device=device, index=index, progress=say.progress)
        spans = searcher.search(words, video=video, image=image, top=top, where=where)
        show_spans(say, spans)
        if not (writers and spans):
            return
        results = add_pictures(spans, lambda name, reason: say.problem(f"{name}: {reason}"), say.progress)
        title = f"“{words}”" if words else f"Like {(video or image).name}"
        about = f"Top {len(spans)} in {table}" + (f" where {where}" if where else "")
        for path, write in writers:
            write(path, results, title, about)
            say.note(f"Wrote [bold]{escape(str(path))}[/bold].")


def show_spans(say: Terminal, spans: list["Span"]) -> None:
    """A line for each span with its score, times and video."""
    from .search_results import clock

    if say.json:
        for span in spans:
            # NaN is not JSON: there are no times of videos that tell none.
            say.result({name: value if value == value else None for name, value in asdict(span).items()})
    elif spans:
        rows = Table("", "score", "from", "to", "video", box=None, header_style="dim")
        for number, span in enumerate(spans, start=1):
            times = clock(span.start_seconds), clock(span.end_seconds)
            rows.add_row(str(number), f"[bold]{span.score:.3f}[/bold]", *times, escape(span.video))
        say.result({}, rows)
    else:
        say.note("No row of the table fulfills the condition.")


@app.command()
def classify(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders to search for them.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Directory or name on the Hub of a video-text model or of a classifier; by default a toy model for "
            "moving shapes."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="What a video may show, in words; repeatable. For video-text models.")
    ] = None,
    labels: Annotated[str, typer.Option(help='Labels in one text, with commas between: "a dog, a cat".')] = "",
    labels_file: Annotated[Path | None, typer.Option(help="Labels in a file: JSON, or text with one a line.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to show of each video.")] = 5,
    window: Annotated[
        str | None, typer.Option(help="Score windows of this length one by one, such as 4s or 16f (frames).")
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Time from one window to the next; by default their length.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of the windows' scores over seconds to write.")] = None,
    num_frames: NumFrames = None,
    device: Device = None,
    dtype: ComputeDtype = Dtype.float32,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell which of several labels fits each video best, or each window of it."""
    with terminal(json=json, quiet=quiet) as say:
        import torch

        from vidformers.files import check_target
        from vidformers.inference.clips import find_videos
        from vidformers.inference.windows import Windows

        from .classify import Classifier, classify_files, draw_scores, gather_labels

        texts = gather_labels(label or [], labels, labels_file)
        files = find_videos(videos)
        windows = Windows.parse(window, step) if window else None
        if plot is not None and windows is None:
            raise ValueError("--plot draws scores over seconds: give the length of windows too, such as --window 4s.")
        if plot is not None:
            check_target(plot)
        classifier = Classifier(model, num_frames, device=device, dtype=getattr(torch, dtype.value))
        if model is None:
            say.note('This is a toy model for moving shapes, such as "a red circle moves left".')
        scores = []
        for result in classify_files(classifier, files, texts, windows, progress=say.progress):
            if result.failure:
                say.problem(f"{result.name}: {result.failure}")
            else:
                show_scores(say, result, top, several=len(files) > 1)
            scores.append(result)
        readable = [result for result in scores if not result.failure]
        if plot is not None and readable:
            draw_scores(readable, top, plot)
            say.note(f"Wrote [bold]{escape(str(plot))}[/bold].")
        if len(readable) < len(scores):
            raise typer.Exit(1)


def show_scores(say: Terminal, result: "Scores", top: int, several: bool) -> None:
    """The best labels of a video or of a window of it, with its name where there are several videos."""
    best = dict(list(result.shares.items())[:top])
    record, shown = {"video": result.name, "labels": best}, [f"[bold]{escape(result.name)}[/bold]"] if several else []
    if result.window is not None:
        start, end = result.window.start_seconds, result.window.end_seconds
        record |= {"start_seconds": start, "end_seconds": end}
        shown.append(f"{start:.2f} to {end:.2f} s")
    if result.num_frames == 1:
        shown.append(f"{escape(result.name)} is a still image: nothing moves in it.")
    say.result(record, *shown, share_table(best))


def share_table(shares: dict[str, float]) -> Table:
    """A bar and a percentage for each label."""
    table = Table(box=None, show_header=False)
    for label, share in shares.items():
        table.add_row(escape(label), ProgressBar(total=1.0, completed=share, width=30), f"{share:6.1%}")
    return table


app.add_typer(cli_training.app)

export_app = typer.Typer(help="Add files to a model's directory by which other tools load it.", no_args_is_help=True)
app.add_typer(export_app, name="export")


@export_app.command("sentence-transformers")
def export_sentence_transformers(
    directory: Annotated[Path, typer.Argument(help="Directory of a model that embeds videos.")],
    num_frames: NumFrames = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let `SentenceTransformer(DIRECTORY, trust_remote_code=True)` load a directory."""
    with terminal(json=json, quiet=quiet) as say:
        from .export import export_sentence_transformers as job

        for path in job(directory, num_frames):
            say.result({"file": str(path)}, f"Wrote [bold]{escape(str(path))}[/bold].")


@app.command("list")
def list_presets(
    family: Annotated[str | None, typer.Option(help="Name of one family.")] = None,
    json: Json = False,
) -> None:
    """List the families and the published checkpoints that can be converted."""
    with terminal(json=json, quiet=True) as say:
        from .listing import list_checkpoints

        for listing in list_checkpoints(family):
            if not json:
                output.print(f"\n[bold]{escape(listing.title)}[/bold] (--family {listing.family})")
            width = max(len(entry.preset) for entry in listing.checkpoints)
            for entry in listing.checkpoints:
                lines = [f"  {entry.preset:{width}}  {entry.size}, {entry.input}, {entry.form}"]
                lines += [f"      {place}" for place in entry.files or [NOT_PUBLIC]]
                say.result({"family": listing.family, **asdict(entry)}, escape("\n".join(lines)))


NOT_PUBLIC = "its authors have not published it"


def main() -> None:
    """Run the command."""
    app()
