"""The card of a model that was trained here: what it learned from, how it went, and pictures of that."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData


LABELED_CLASSES = 40
"""Most classes whose names fit beside a picture."""


def write_card(
    directory: Path,
    task: Mapping[str, Any],
    settings: Mapping[str, Any],
    epochs: Sequence[Mapping[str, float]],
    confusion: Sequence[Sequence[int]],
) -> None:
    """Write README.md, two pictures and `training.json` into the directory of a classifier.

    Args:
        directory: where to.
        task: base, source, classes and numbers of clips, as [`~vidformers.commands.finetune.Task`] records them.
        settings: how it was trained.
        epochs: measures of each, as in [`~vidformers.commands.finetune.Measures`].
        confusion: (classes, classes), how many clips of a row's class were taken for a column's.
    """
    draw_curve(epochs, directory / "accuracy.png")
    draw_confusion(confusion, task["classes"], directory / "confusion.png")
    record = {**task, "settings": dict(settings), "epochs": list(epochs), "confusion": list(confusion)}
    (directory / "training.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    (directory / "README.md").write_text(card(directory.name, task, settings, epochs), "utf-8")


def card(
    name: str, task: Mapping[str, Any], settings: Mapping[str, Any], epochs: Sequence[Mapping[str, float]]
) -> str:
    """The text of the card."""
    accuracy, source = epochs[-1]["accuracy"], Path(task["source"]).name
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-classification",
        tags=["vidformers", "video"],
        base_model=hub_name(task["base"]),
        model_name=name,
        eval_results=[EvalResult("video-classification", source, source, "accuracy", accuracy)],
    )
    rows = "\n".join(
        f"| {each['epoch']} | {each['loss']:.4f} | {each['validation_loss']:.4f} | {each['accuracy']:.1%} |"
        for each in epochs
    )
    return f"""---
{data.to_yaml()}
---

# {name}

A classifier of videos with {len(task["classes"])} classes, trained from `{task["base"]}` on
{task["training_clips"]} clips of `{source}`. On {task["validation_clips"]} clips that it was not
trained on, its accuracy is {accuracy:.1%}.

```python
import vidformers
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

processor = AutoVideoProcessor.from_pretrained("{name}")
classifier = AutoModelForVideoClassification.from_pretrained("{name}")
inputs = processor("video.mp4", num_frames={task["num_frames"]}, return_tensors="pt")
label = classifier.config.id2label[classifier(**inputs).logits.argmax().item()]
```

## How it went

![Accuracy and loss after each epoch](accuracy.png)

| epoch | loss | loss of the clips kept from training | accuracy on them |
|---|---|---|---|
{rows}

![Which class was taken for which](confusion.png)

A row of the picture holds the clips of one class, a column those that were taken for it. All numbers are of the last
epoch.

## Settings

{table_of(settings)}
"""


def hub_name(base: str) -> str | None:
    """What a model was made from, if that can be a repository on the Hub."""
    return base if base.count("/") == 1 else None


def table_of(values: Mapping[str, Any]) -> str:
    """Names and values as a table in Markdown."""
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in values.items())
    return f"| | |\n|---|---|\n{rows}"


def draw_curve(epochs: Sequence[Mapping[str, float]], path: Path) -> None:
    """A picture of losses and accuracy over the epochs."""
    from matplotlib.figure import Figure

    numbers = [each["epoch"] for each in epochs]
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [each["loss"] for each in epochs], marker="o", label="training")
    left.plot(numbers, [each["validation_loss"] for each in epochs], marker="o", label="kept from training")
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    right.plot(numbers, [100 * each["accuracy"] for each in epochs], marker="o", color="tab:green")
    right.set(xlabel="epoch", ylabel="accuracy, %", ylim=(0, 102))
    save_curves(figure, path)


def save_curves(figure: Any, path: Path) -> None:
    """Write a figure whose panels have epochs on their x axes."""
    for axes in figure.axes:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """A picture of which class was taken for which: shares of a row's clips, with their number where there is room."""
    from matplotlib.figure import Figure

    counts = np.asarray(confusion)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    side = min(3 + 0.35 * len(classes), 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="taken for", ylabel="class")
    if len(classes) <= LABELED_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, label="share of the class")
    figure.savefig(path, dpi=120)
