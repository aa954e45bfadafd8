"""The card of a probe: what its heads learned from, how each did, and pictures of that."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from .training_card import draw_confusion, hub_name, save_curves, table_of


def write_card(
    directory: Path,
    task: Mapping[str, Any],
    settings: Mapping[str, Any],
    heads: Sequence[Mapping[str, float]],
    measures: Mapping[str, Any],
) -> None:
    """Write README.md, pictures and `training.json` into the directory of a probe.

    Args:
        directory: where to.
        task: base, source, classes and numbers of clips, as [`~vidformers.commands.probe.Task`] records them.
        settings: how it was trained.
        heads: rate and decay of each.
        measures: fields of [`~vidformers.commands.probe.Measures`].
    """
    draw_curve(measures["epochs"], measures["chosen"], directory / "accuracy.png")
    if measures["confusion"] is not None:
        draw_confusion(measures["confusion"], task["classes"], directory / "confusion.png")
    record = {**task, "settings": dict(settings), "heads": list(heads), **measures}
    (directory / "training.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    (directory / "README.md").write_text(card(directory.name, task, settings, heads, measures), "utf-8")


def score_of(measures: Mapping[str, float]) -> str:
    """The name of the number that heads are compared by: the first one."""
    return next(iter(measures))


def card(
    name: str,
    task: Mapping[str, Any],
    settings: Mapping[str, Any],
    heads: Sequence[Mapping[str, float]],
    measures: Mapping[str, Any],
) -> str:
    """The text of the card."""
    source, score = Path(task["source"]).name, score_of(measures["validation"])
    reported, about = measures["test"] or measures["validation"], _about(task, settings, measures)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-classification",
        tags=["vidformers", "video", "probe"],
        base_model=hub_name(task["base"]),
        model_name=name,
        eval_results=[EvalResult("video-classification", source, source, score, reported[score])],
    )
    last = measures["epochs"][-1]
    rows = "\n".join(
        f"| {head['ref_lr']:g} | {head['ref_wd']:g} | {loss:.4f} | {each[score]:.1%} |"
        + (" chosen |" if number == measures["chosen"] else " |")
        for number, (head, loss, each) in enumerate(zip(heads, last["losses"], last["measures"], strict=True))
    )
    numbers = table_of({key: f"{value:.1%}" for key, value in reported.items()})
    confusion = "" if measures["confusion"] is None else "\n![Which class was taken for which](confusion.png)\n"
    return f"""---
{data.to_yaml()}
---

# {name}

An attentive probe with {len(task["classes"])} classes on the frozen encoder of `{task["base"]}`, trained on
{task["training_clips"]} {"images" if task["images"] else "clips"} of `{source}`. {about}

{numbers}

`from_pretrained` of `{task["model_class"]}` loads it after `import vidformers`; it takes {task["num_frames"]} frames
{"that all show the image" if task["images"] else "of a video"}.
{confusion}
## The heads

All learned from the same features. The first column of numbers is the mean loss of the last epoch, the second one the
{score.replace("_", " ")} on the clips to choose by.

| rate | weight decay | loss | {score.replace("_", " ")} | |
|---|---|---|---|---|
{rows}

![Loss and {score.replace("_", " ")} of every head after each epoch](accuracy.png)

## Settings

{table_of(settings)}
"""


def _about(task: Mapping[str, Any], settings: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    """What the numbers were measured on, and how far they can be trusted."""
    chosen = f"The head was chosen on {task['validation_clips']} others"
    left_out = task["unreadable"] + len(measures["left_out"])
    skipped = f" {left_out} could not be used, and were left out." if left_out else ""
    if measures["test"] is not None:
        return f"{chosen}, and measured once on {task['test_clips']} that had no part in either:{skipped}"
    drawn = settings["as_original"] and not task["images"]
    how = "as the original evaluates it, on drawn clips of whole batches" if drawn else "all of them"
    return f"{chosen}, {how}. The numbers are of those same clips, so that they flatter it:{skipped}"


def draw_curve(epochs: Sequence[Mapping[str, Any]], chosen: int, path: Path) -> None:
    """A picture of every head's loss and score over the epochs, the chosen one's in color."""
    from matplotlib.figure import Figure

    numbers, score = [each["epoch"] for each in epochs], score_of(epochs[0]["measures"][0])
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    others = [head for head in range(len(epochs[0]["losses"])) if head != chosen]
    for head in (*others, chosen):
        style = {"color": "tab:blue", "marker": "o"} if head == chosen else {"color": "silver", "marker": "."}
        label = "chosen" if head == chosen else "other heads" if head == others[0] else None
        left.plot(numbers, [each["losses"][head] for each in epochs], label=label, **style)
        right.plot(numbers, [100 * each["measures"][head][score] for each in epochs], **style)
    left.set(xlabel="epoch", ylabel="loss in training")
    left.legend()
    right.set(xlabel="epoch", ylabel=f"{score.replace('_', ' ')} on clips to choose by, %", ylim=(0, 102))
    save_curves(figure, path)
