"""The commands that train: `vidformers finetune`, `pretrain` and `probe`."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .console import Json, Quiet, terminal
from .options import ComputeDtype, Device, Dtype, NumFrames


app = typer.Typer()

Workers = Annotated[int, typer.Option(min=0, help="Processes that decode; 0 to decode in this one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")]


@app.command()
def finetune(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with a folder of video files for each class, a CSV file of paths and labels, or a data set "
            "of `datasets` (its saved folder, NAME or NAME:SPLIT)."
        ),
    ],
    model: Annotated[str, typer.Option(help="Directory or name on the Hub of the model to start from.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    validation: Annotated[
        str | None, typer.Option(help="Clips to measure with, in the form of SOURCE; by default a share of its clips.")
    ] = None,
    validation_share: Annotated[float, typer.Option(help="Share of every class to measure with.")] = 0.2,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the clips.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips of a step.")] = 8,
    learning_rate: Annotated[
        float, typer.Option(help="Highest learning rate, reached after a tenth of the steps.")
    ] = 5e-5,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head alone.")] = False,
    lora: Annotated[
        int | None, typer.Option(min=1, metavar="RANK", help="Train low-rank adapters of the encoder, and the head.")
    ] = None,
    num_frames: NumFrames = None,
    seed: Annotated[int, typer.Option(help="Decides the split, the order and the new head.")] = 0,
    workers: Workers = 2,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be opened.")
    ] = False,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a video classifier on clips of your own."""
    with terminal(json=json, quiet=quiet) as say:
        from vidformers.files import check_target

        from .finetune import Settings, prepare, train

        check_target(out, folder=True)
        settings = Settings(epochs, batch_size, learning_rate, freeze, lora, seed)
        task = prepare(
            source,
            model,
            validation=validation,
            num_frames=num_frames,
            validation_share=validation_share,
            seed=seed,
            skip_unreadable=skip_unreadable,
            progress=say.progress,
        )
        for reason in task.unreadable:
            say.problem(f"left out: {reason}")
        counts = f"{len(task.training)} clips to train on, {len(task.validation)} to measure with"
        say.note(f"{len(task.classes)} classes, {counts}")
        say.note(escape(task.loading))

        def show_epoch(epoch: Mapping[str, float]) -> None:
            line = f"epoch {epoch['epoch']}: loss {epoch['loss']:.3f}, accuracy {epoch['accuracy']:.1%}"
            say.result(dict(epoch), line)

        measures = train(
            task, out, settings, resume=resume, workers=workers, progress=say.progress, on_epoch=show_epoch
        )
        say.note(f"Accuracy {measures.accuracy:.1%} on the clips kept from training.")
        say.note(f"Wrote [bold]{escape(str(out))}[/bold].")


@app.command()
def pretrain(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Videos without labels: folders, lists of paths (.csv), data sets of `datasets` by folder or name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    model: Annotated[
        str | None, typer.Option(help="Directory or name on the Hub of the model to go on from; by default a new one.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Published settings; by default the usual ones, for the model's own clips.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="vjepa2 or videomae; by default that of model or recipe.")
    ] = None,
    weight: Annotated[list[float] | None, typer.Option(help="Share of a source, in their order; repeatable.")] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Images to learn from beside the videos: a source in the same forms; repeatable."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimizer.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips of a step, of all processes together.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option(help="What the teacher keeps of itself in a step.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any field of the recipe; repeatable.")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Clips that a process takes at once; gradients of several add up.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="no, bf16 or fp16; by default as `accelerate launch` says.")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations again in the backward pass.")
    ] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Steps from one checkpoint to the next.")] = 300,
    log_every: Annotated[int, typer.Option(min=1, help="Steps from one record to the next.")] = 10,
    tracker: Annotated[
        list[str] | None, typer.Option(help="Tracker of accelerate: tensorboard, wandb and others; repeatable.")
    ] = None,
    most_unusable: Annotated[float, typer.Option(help="Share of the videos that may be unusable.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Decides a new model, the order, the clips and the masks.")] = 0,
    workers: Workers = 2,
    resume: Resume = False,
    skip_step: Annotated[
        bool, typer.Option("--skip-step", help="With --resume: leave out the step whose loss was no number.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pre-train a model on videos without labels, alone or by `accelerate launch`."""
    from vidformers.inference.processes import Processes

    with terminal(json=json, quiet=quiet or Processes.launched().rank > 0) as say:
        from vidformers.files import check_target

        from . import pretrain as job

        check_target(out, folder=True)
        named = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "momentum": momentum}
        task = job.prepare(
            sources,
            model=model,
            recipe=recipe,
            objective=objective,
            weights=weight,
            images=images or [],
            changes=job.parse(set_ or []) | {name: value for name, value in named.items() if value is not None},
            seed=seed,
        )
        for note in job.notes(task):
            say.note(escape(note))

        def show_record(record: Mapping[str, float]) -> None:
            say.result(dict(record), job.describe(record))

        try:
            job.pretrain(
                task,
                out,
                micro_batch=micro_batch,
                precision=precision,
                checkpointing=checkpointing,
                save_every=save_every,
                log_every=log_every,
                workers=workers,
                most_unusable=most_unusable,
                trackers=tracker,
                resume=resume,
                skip_step=skip_step,
                progress=say.progress,
                on_record=show_record,
                on_unusable=lambda reason: say.problem(f"passed over: {reason}"),
            )
        except KeyboardInterrupt as stop:
            say.problem("Stopped. The same command with --resume goes on from the last checkpoint.")
            raise typer.Exit(130) from stop
        say.note(f"Wrote [bold]{escape(str(out))}[/bold].")


class Loss(StrEnum):
    """Losses of classifiers."""

    cross_entropy = "cross_entropy"
    focal = "focal"


@app.command()
def probe(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with a folder of videos or of images for each class, or with such folders `train` and "
            "`val`; a CSV file of paths and labels; a data set of `datasets` (NAME, NAME:SPLIT or its folder); or a "
            "CSV file of actions as EPIC-KITCHENS-100 has them."
        ),
    ],
    model: Annotated[str, typer.Option(help="Directory or name on the Hub of a model, whose encoder stays as it is.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    validation: Annotated[
        str | None,
        typer.Option(help="Clips to choose a head by, in the form of SOURCE; by default its `val` or a share of it."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Clips to test the chosen head with, once; by default SOURCE's `test` or a share of it."),
    ] = None,
    validation_share: Annotated[float, typer.Option(help="Share of every class to choose by.")] = 0.2,
    test_share: Annotated[float, typer.Option(help="Share of every class to test with; 0 for no test.")] = 0.2,
    videos: Annotated[
        Path | None, typer.Option(help="Folder with the videos of actions; by default that of the CSV file.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Folder to keep features in; by default OUT.features.")] = None,
    as_original: Annotated[
        bool, typer.Option("--as-original", help="Train and validate as V-JEPA 2's authors do, and choose by that.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the clips; 20 by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips of a step; 8 by default.")] = None,
    rate: Annotated[
        list[float] | None, typer.Option(help="Learning rate of a head; repeatable. 1e-3 and 3e-3 by default.")
    ] = None,
    decay: Annotated[
        list[float] | None, typer.Option(help="Weight decay; repeatable, for a head of each rate. 0.1 by default.")
    ] = None,
    warmup: Annotated[float | None, typer.Option(min=0, help="Epochs in which rates rise; none by default.")] = None,
    start_rate: Annotated[float | None, typer.Option(help="Rate that they rise from; 0 by default.")] = None,
    layers: Annotated[
        int | None, typer.Option(min=0, help="Self-attention blocks before a head's cross-attention; none by default.")
    ] = None,
    segments: Annotated[
        int | None, typer.Option(min=1, help="Parts of a video to see a clip of; 1 by default.")
    ] = None,
    views: Annotated[int | None, typer.Option(min=1, help="Crops of a clip in validation; 1 by default.")] = None,
    frame_step: Annotated[
        int | None, typer.Option(min=1, help="Take every Nth frame, and crop as V-JEPA 2's authors do.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second before an action; 8 by default.")] = None,
    out_layer: Annotated[
        list[int] | None,
        typer.Option(help="Block of a V-JEPA encoder to read, from 0; repeatable. The last by default."),
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment", help="Draw training clips anew in every epoch; no features of them are kept.")
    ] = False,
    loss: Annotated[Loss | None, typer.Option(help="Cross-entropy by default.")] = None,
    num_frames: NumFrames = None,
    max_unreadable: Annotated[
        float | None, typer.Option(help="Share of the clips that may be unusable; 0.1 by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the splits, the order and the heads; 0 by default.")
    ] = None,
    workers: Workers = 2,
    device: Device = None,
    dtype: ComputeDtype = Dtype.float32,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train attentive probes on a frozen encoder, and tell how good the best one is."""
    with terminal(json=json, quiet=quiet) as say:
        import torch

        from vidformers.files import check_target

        from .probe import Settings, prepare, train
        from .probe_task import kind_of

        check_target(out, folder=True)
        given = {
            "epochs": epochs,
            "batch_size": batch_size,
            "rates": tuple(rate or ()) or None,
            "decays": tuple(decay or ()) or None,
            "warmup": warmup,
            "start_rate": start_rate,
            "layers": layers,
            "segments": segments,
            "views": views,
            "frame_step": frame_step,
            "fps": fps,
            "out_layers": tuple(out_layer or ()) or None,
            "augment": augment or None,
            "loss": loss and loss.value,
            "max_unreadable": max_unreadable,
            "seed": seed,
        }
        given = {name: value for name, value in given.items() if value is not None}
        task = prepare(
            source,
            model,
            Settings.original(kind_of(source), **given) if as_original else Settings(**given),
            validation=validation,
            test=test,
            videos=videos,
            validation_share=validation_share,
            test_share=test_share,
            num_frames=num_frames,
            device=device,
            dtype=getattr(torch, dtype.value),
            progress=say.progress,
        )
        for reason in task.unreadable:
            say.problem(f"left out: {reason}")
        counts = ", ".join(
            f"{len(clips)} {purpose}" for clips, purpose in zip(task.parts.values(), PURPOSES, strict=True)
        )
        say.note(f"{len(task.classes)} classes: clips {counts}; {len(task.settings.heads)} heads")

        def show_epoch(epoch: Mapping[str, Any]) -> None:
            name = next(iter(epoch["measures"][0]))
            best = max(each[name] for each in epoch["measures"])
            say.result(dict(epoch), f"epoch {epoch['epoch']}: {name.replace('_', ' ')} {best:.1%} of the best head")

        measures = train(
            task, out, features=features, resume=resume, workers=workers, progress=say.progress, on_epoch=show_epoch
        )
        for reason in measures.left_out:
            say.problem(f"left out: {reason}")
        for part, found in (("the clips to choose by", measures.validation), ("the test", measures.test)):
            if found is not None:
                numbers = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.items())
                say.note(f"On {part}: {numbers}")
        say.note(f"Wrote [bold]{escape(str(out))}[/bold].")


PURPOSES = "to train on", "to choose by", "to test with"
