"""The model card of a converted directory."""

from pathlib import Path
from typing import Any

from .load import Plan, left_out_tensors
from .provenance import PROVENANCE


TASKS = {"AutoModelForVideoClassification": "video-classification"}


def write_card(folder: Path, plan: Plan, provenance: dict[str, Any], hub_repo: str | None = None) -> None:
    """Write the model card, for a Hub repository or for a directory that will be anywhere."""
    (folder / "README.md").write_text(_front_matter(plan) + _body(plan, provenance, hub_repo), "utf-8")


def _front_matter(plan: Plan) -> str:
    lines = ["library_name: transformers", f"tags: [video, {plan.family.model_type}, vidformers]"]
    if plan.published and plan.published.license:
        lines.insert(0, f"license: {plan.published.license}")
    lines += [f"pipeline_tag: {TASKS[auto]}" for auto, name in _auto_classes(plan) if auto in TASKS]
    return "---\n" + "\n".join(lines) + "\n---\n\n"


def _auto_classes(plan: Plan) -> list[tuple[str, str]]:
    entries = [item for part in (plan.family, *plan.family.parts) for item in part.auto_models.items()]
    return [(auto, name) for auto, name in entries if name == plan.form.architecture]


def _body(plan: Plan, provenance: dict[str, Any], hub_repo: str | None) -> str:
    name = plan.preset or plan.form.architecture
    auto = next((auto for auto, _ in _auto_classes(plan)), None)
    loader = auto or plan.form.architecture
    imports = "" if auto else f"from vidformers import {loader}\n"
    processor = _processor_class(plan, provenance)
    classes = f"{auto}, {processor}" if auto else processor
    sources = "\n".join(
        f"| {source['file']} | {source['preset_url'] or 'not stated'} | `{source['sha256']}` |"
        for source in provenance["sources"]
    )
    parity = "\n".join(
        f"| {report['title']} | {report['stages']} | {report['worst']['max_abs']:.2e} | "
        f"{report['worst']['relative']:.2e} | {report['tolerance']:g} |"
        for report in provenance["parity"]
    )
    parts = ", ".join(
        f"{key or 'the model'} from {'`' + part['entry'] + '`' if part['entry'] else 'the top of the file'}"
        for key, part in provenance["parts"].items()
    )
    place = f'"{hub_repo}"' if hub_repo else "directory"
    where = "" if hub_repo else 'directory = "…"  # put the path of this directory here\n'
    hub = plan.published and plan.published.hub
    twin = f" The Hub's [{hub}](https://huggingface.co/{hub}) was made of the same file." if hub else ""
    return f"""# {name}

{plan.family.title} weights ({provenance["dtype"]}), converted from the original checkpoint by
vidformers {provenance["libraries"]["vidformers"]}. Paper: {plan.family.paper}{twin}

```python
import vidformers
from transformers import {classes}
{imports}
{where}processor = {processor}.from_pretrained({place})
model = {loader}.from_pretrained({place})
```

## Origin

{_license(plan)}| file | expected at | SHA-256 |
|---|---|---|
{sources}

Read as {plan.form.title}: {parts}. {_changes(plan)}

## Checks at conversion

| compared with | stages | worst max abs | worst relative | tolerance |
|---|---|---|---|---|
{parity}

The whole record is in `{PROVENANCE}`; `vidformers verify DIR` repeats the checks.
"""


def _license(plan: Plan) -> str:
    """What must be said of a published checkpoint that comes without a license."""
    if plan.published is None or plan.published.license:
        return ""
    return "Whoever publishes the checkpoint states no license for it.\n\n"


def _changes(plan: Plan) -> str:
    """What of the files the directory lacks, and what it has that they lack."""
    left_out = {**{f"`{name}`": why for name, why in plan.found.left_out.items()}, **left_out_tensors(plan)}
    text = "Left out:" + ("".join(f"\n- {what}: {why}" for what, why in left_out.items()) or " nothing.")
    if plan.label_rows:
        text += f"\n\nOf the classifier's rows {len(plan.label_rows)} are kept, by the names of their classes."
    if plan.new_modules:
        text += f"\n\nNew, and to be trained: {', '.join(f'`{name}`' for name in plan.new_modules)}."
    return text


def _processor_class(plan: Plan, provenance: dict[str, Any]) -> str:
    """The Auto class that loads what prepares the model's input."""
    if not plan.form.videos:
        return "AutoImageProcessor" if plan.form.images else "AutoTokenizer"
    return "AutoProcessor" if provenance["tokenizer"] else "AutoVideoProcessor"
