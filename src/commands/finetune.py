"""A classifier from labeled clips, by the Trainer of transformers: what the command `vidformers finetune` does.

Needs `pip install 'vidformers[train]'`.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForVideoClassification,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.trainer_utils import get_last_checkpoint

from vidformers.files import check_target, written_whole
from vidformers.inference.clips import frames_of_a_clip
from vidformers.inference.directory import Directory, loading_unreported, new_and_left_out
from vidformers.inference.labeled_clips import Clips, check_counts, find_clips, relabeled, split, unreadable
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.progress import Progress, no_progress
from vidformers.training.state import check_installed, check_state
from vidformers.video.processor import VideoProcessor

from .training_card import write_card


NEEDED = {"accelerate": "the Trainer of transformers", "matplotlib": "the pictures of the model card"}


@dataclass(frozen=True)
class Settings:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the clips; the accuracy is measured after each.
        batch_size: clips of a step.
        learning_rate: at its highest, after a tenth of the steps.
        freeze: train the head alone.
        lora: rank of low-rank adapters to train in the place of the encoder's own weights, or `None`. They are merged
            into the weights in the end.
        seed: decides the split, the order and the new head.
    """

    epochs: int = 10
    batch_size: int = 8
    learning_rate: float = 5e-5
    freeze: bool = False
    lora: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """What a training needs.

    Attributes:
        model: with a head for the classes.
        base: what it was made from, as given.
        loading: what is new in it, and what of the directory was left out, in one line.
        processor: its video processor.
        source: what the clips were found in, as given.
        classes: names of the classes in the order of their numbers.
        training: clips to train on.
        validation: clips to measure with.
        unreadable: why files were left out, a line each.
    """

    model: VideoPreTrainedModel
    base: str
    loading: str
    processor: VideoProcessor
    source: str
    classes: tuple[str, ...]
    training: Clips
    validation: Clips
    unreadable: tuple[str, ...]

    @property
    def record(self) -> dict[str, Any]:
        """What the task is, in plain values."""
        return {
            "base": self.base,
            "source": self.source,
            "classes": list(self.classes),
            "training_clips": len(self.training),
            "validation_clips": len(self.validation),
            "num_frames": self.training.num_frames,
        }


@dataclass(frozen=True)
class Measures:
    """How a training went.

    Attributes:
        epochs: for each, its number, the mean loss of its steps, and loss and accuracy on the clips kept from it.
        confusion: (classes, classes), how many clips of a row's class were taken for a column's.
    """

    epochs: list[dict[str, float]]
    confusion: list[list[int]]

    @property
    def accuracy(self) -> float:
        """Share of the clips kept from training whose class scores highest, after the last epoch."""
        return self.epochs[-1]["accuracy"]


def prepare(
    source: str | os.PathLike,
    model: str | os.PathLike,
    *,
    validation: str | os.PathLike | None = None,
    num_frames: int | None = None,
    validation_share: float = 0.2,
    seed: int = 0,
    skip_unreadable: bool = False,
    progress: Progress = no_progress,
) -> Task:
    """Find clips, open each once so that a broken one does not stop the training, and load a model with a new head.

    Args:
        source: what [`~vidformers.inference.labeled_clips.find_clips`] takes.
        model: a directory or the name of a repository on the Hub. Its head is kept if it has as many classes.
        validation: a source of clips to measure with; by default a share of `source` is.
        num_frames: frames to take of a clip; by default the model's number.
        validation_share: share of every class to measure with; at least one clip.
        seed: decides the split and the new head.
        skip_unreadable: leave out files that cannot be opened.
        progress: called with an activity and how much of it is done.

    Returns:
        The task for [`~vidformers.commands.finetune.train`].

    Raises:
        ModuleNotFoundError: a package that this needs is not installed.
        OSError: there is no such model.
        ValueError: the model is no classifier, a class has too few clips, or some cannot be opened.
    """
    for package, purpose in NEEDED.items():
        check_installed(package, purpose)
    fewest = 2 if validation is None else 1
    clips, classes = find_clips(source)
    check_counts(clips, classes, fewest)
    measured = relabeled(*find_clips(validation), classes) if validation is not None else []
    problems = unreadable([*clips, *measured], progress)
    if problems and not skip_unreadable:
        listed = "\n".join(problems.values())
        raise ValueError(f"These files cannot be read; remove them, or pass --skip-unreadable:\n{listed}")
    clips, measured = ([clip for clip in part if clip not in problems] for part in (clips, measured))
    check_counts(clips, classes, fewest)
    if validation is None:
        clips, measured = split(clips, validation_share, seed)
    elif not measured:
        raise ValueError(f"{validation}: none of its clips can be read.")
    set_seed(seed)
    classifier, loading = load_classifier(model, classes)
    processor = AutoVideoProcessor.from_pretrained(model)
    num_frames = num_frames or frames_of_a_clip(classifier, processor)
    parts = (Clips(part, processor, num_frames) for part in (clips, measured))
    return Task(
        classifier, str(model), loading, processor, str(source), tuple(classes), *parts, tuple(problems.values())
    )


def load_classifier(directory: str | os.PathLike, classes: list[str]) -> tuple[VideoPreTrainedModel, str]:
    """A directory's model with a head for these classes, and a line about what is new in it and what was left out.

    Raises:
        ValueError: no class of the family classifies videos.
    """
    opened = Directory.open(directory)
    if "AutoModelForVideoClassification" not in opened.record.auto_models:
        raise ValueError(f"{directory}: {opened.model_class.__name__} has no counterpart that classifies videos.")
    config = opened.config
    if opened.labels is None:
        config = opened.model_class.for_classification(config)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    with loading_unreported():  # said below, in one line
        model, found = AutoModelForVideoClassification.from_pretrained(
            directory, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
    return model, new_and_left_out(found)


def train(
    task: Task,
    out: str | os.PathLike,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    workers: int = 2,
    progress: Progress = no_progress,
    on_epoch: Callable[[Mapping[str, float]], None] = lambda epoch: None,
) -> Measures:
    """Train a task's model, and write a directory for `from_pretrained` with a card that shows how it went.

    While it runs, the state after every epoch is kept in a folder beside `out`, from which `resume` goes on.

    Args:
        task: from [`~vidformers.commands.finetune.prepare`].
        out: the directory.
        settings: how to train.
        resume: go on where an earlier run with the same task and settings stopped.
        workers: processes that decode; 0 to decode in this one.
        progress: called with an activity and how much of it is done.
        on_epoch: called after each with its measures, as in `Measures.epochs`.

    Returns:
        The measures on the clips kept from training.

    Raises:
        ValueError: `out` exists already; or there is a state beside it that is not to be resumed, or of another task.
    """
    settings, out = settings or Settings(), check_target(out, folder=True)
    if settings.lora is not None:
        check_installed("peft", "low-rank adapters")
    state = check_state(out, task.record | asdict(settings), resume)
    told = _Told(len(task.classes), progress, on_epoch)
    trainer = Trainer(
        model=trainable(task.model, settings),
        args=_arguments(state, settings, workers),
        train_dataset=task.training,
        eval_dataset=task.validation,
        data_collator=default_data_collator,
        compute_metrics=told.measure,
        callbacks=[told],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state)))
    if told.confusion is None:  # The earlier run had only to write its result.
        trainer.predict(task.validation)
    measures = Measures(epochs_in(trainer.state.log_history), told.confusion)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_world_process_zero():
        with written_whole(out, folder=True) as (place,):
            (model if settings.lora is None else model.merge_and_unload()).save_pretrained(place)
            task.processor.save_pretrained(place)
            write_card(place, task.record, asdict(settings), measures.epochs, measures.confusion)
        shutil.rmtree(state)
    return measures


def trainable(model: VideoPreTrainedModel, settings: Settings) -> torch.nn.Module:
    """The model with what is trained of it: all, the head alone, or the head and adapters of the encoder."""
    if settings.freeze:
        model.base_model.requires_grad_(False)
    if settings.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    encoder = f"{model.base_model_prefix}."
    linear = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    config = LoraConfig(
        r=settings.lora,
        lora_alpha=2 * settings.lora,
        target_modules=[name for name in linear if name.startswith(encoder)],
        modules_to_save=[name for name, _ in model.named_children() if f"{name}." != encoder],
    )
    return get_peft_model(model, config)


def _arguments(state: Path, settings: Settings, workers: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(state),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # of all steps
        weight_decay=0.05,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        dataloader_num_workers=workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
    )


def epochs_in(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The measures of every epoch, as in `Measures.epochs`, from what the Trainer has logged."""
    losses = {round(entry["epoch"]): entry["loss"] for entry in history if "loss" in entry}
    return [
        {
            "epoch": (epoch := round(entry["epoch"])),
            "loss": losses[epoch],
            "validation_loss": entry["eval_loss"],
            "accuracy": entry["eval_accuracy"],
        }
        for entry in history
        if "eval_accuracy" in entry
    ]


class _Told(TrainerCallback):
    """What a training tells while it goes on."""

    def __init__(
        self,
        num_classes: int,
        progress: Progress,
        on_epoch: Callable[[Mapping[str, float]], None],
    ):
        self.num_classes, self.progress, self.on_epoch = num_classes, progress, on_epoch
        self.confusion: list[list[int]] | None = None

    def measure(self, prediction: EvalPrediction) -> dict[str, float]:
        """The accuracy; what was taken for what is kept of the last call."""
        found = prediction.predictions.argmax(-1)
        pairs = torch.as_tensor(prediction.label_ids * self.num_classes + found)
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        self.confusion = counts.reshape(self.num_classes, self.num_classes).tolist()
        return {"accuracy": float((found == prediction.label_ids).mean())}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell how many steps are done."""
        self.progress("training", state.global_step, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the measures of an epoch."""
        self.on_epoch(epochs_in(state.log_history)[-1])
