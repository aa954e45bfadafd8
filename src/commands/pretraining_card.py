"""The card of a model that was pre-trained here: what it learned from, how, and a picture of how it went."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from .training_card import hub_name, table_of


def write_card(directory: Path, task: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> None:
    """Write README.md, a picture and `training.json` into the directory of a pre-trained model.

    Args:
        directory: where to.
        task: what it was trained on and how, as [`~vidformers.commands.pretrain.Task`] records it.
        history: the records, as [`~vidformers.commands.pretrain.pretrain`] returns them.
    """
    draw_history(history, directory / "pretraining.png")
    (directory / "training.json").write_text(json.dumps({**task, "history": list(history)}, indent=2) + "\n", "utf-8")
    (directory / "README.md").write_text(card(directory.name, task, history), "utf-8")


def card(name: str, task: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    """The text of the card."""
    data = ModelCardData(
        library_name="transformers",
        tags=["vidformers", "video", "pre-training"],
        base_model=hub_name(task["base"]),
        model_name=name,
    )
    counts = "\n".join(
        f"| `{Path(source).name}` | {count} | {weight / sum(task['weights']):.1%} |"
        for (source, count), weight in zip(task["videos"].items(), task["weights"], strict=True)
    )
    images = "".join(f"\n| `{Path(source).name}` | {count} |" for source, count in task["images"].items())
    heading = "\n\n| source | images |\n|---|---|" if images else ""
    learned = "videos and images" if images else "videos"
    left_out = {"config", "data", "notes", "source"}
    how = table_of({key: value for key, value in task["recipe"].items() if key not in left_out})
    last = history[-1]
    return f"""---
{data.to_yaml()}
---

# {name}

Pre-trained from `{task["base"]}` on {learned} without labels: {last["step"]} steps of
{task["recipe"]["batch_size"]} clips.

```python
import vidformers
from transformers import AutoModel, AutoModelForPreTraining, AutoVideoProcessor

processor = AutoVideoProcessor.from_pretrained("{name}")
encoder = AutoModel.from_pretrained("{name}")
whole = AutoModelForPreTraining.from_pretrained("{name}")
```

## How it went

![What changed with the steps](pretraining.png)

The loss ended at {last["loss"]:.4f}.

## Videos

| source | videos | share |
|---|---|---|
{counts}{heading}{images}

## Settings

From {task["recipe"]["source"]}.

{how}
"""


def draw_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """A picture of the losses, of the targets' spread where there is one, and of the learning rate, over steps."""
    from matplotlib.figure import Figure

    steps, last = [each["step"] for each in history], history[-1]
    panels = {"loss": [name for name in last if name.endswith("loss")] if "context_loss" in last else ["loss"]}
    panels |= {"std of the targets": ["target_std"], "effective rank of the targets": ["target_effective_rank"]}
    panels = {title: names for title, names in panels.items() if names[0] in last} | {
        "learning rate": ["learning_rate"]
    }
    figure = Figure(figsize=(3.4 * len(panels), 3), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            axes.plot(steps, [each[name] for each in history], label=name.replace("_", " "))
        axes.set(xlabel="step", ylabel=title)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    figure.savefig(path, dpi=100)
