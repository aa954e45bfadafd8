"""The model card of a converted directory."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from .load import Plan, left_out_tensors
from .provenance import PROVENANCE


CLASSIFIER = "AutoModelForVideoClassification"
PROCESSORS = {"videos": "AutoVideoProcessor", "images": "AutoImageProcessor", "text": "AutoTokenizer"}


def write_card(folder: Path, plan: Plan, provenance: dict[str, Any], hub_repo: str | None) -> None:
    """Write the model card, for a Hub repository or for a directory that will be anywhere."""
    family, form, published = plan.family, plan.form, plan.request.published
    entries = [item for part in (family, *family.parts) for item in part.auto_models.items()]
    autos = [auto for auto, name in entries if name == form.architecture]
    data = ModelCardData(
        library_name="transformers",
        license=published and published.license,
        pipeline_tag="video-classification" if CLASSIFIER in autos else None,
        tags=["video", family.model_type, "vidformers"],
    )
    hub = published and published.hub
    twin = f" The Hub's [{hub}](https://huggingface.co/{hub}) was made of the same file." if hub else ""
    no_license = "\n\nWhoever publishes the checkpoint states no license for it."
    text = f"""---
{data.to_yaml()}
---

# {plan.request.preset or form.architecture}

{family.title} weights ({provenance["dtype"]}), converted from the original checkpoint by
vidformers {provenance["libraries"]["vidformers"]}. Paper: {family.paper}{twin}

{_example(plan, provenance, autos, hub_repo)}

## Origin{no_license if published and published.source and not published.license else ""}

{_table(("file", "expected at", "SHA-256"), _sources(provenance))}

Read as {form.title}: {_places(provenance)}. {_changes(plan)}

## Checks at conversion

{_table(("compared with", "stages", "worst max abs", "worst relative", "tolerance"), _checks(provenance))}

The whole record is in `{PROVENANCE}`; `vidformers verify DIR` repeats the checks.
"""
    (folder / "README.md").write_text(text, "utf-8")


def _example(plan: Plan, provenance: dict[str, Any], autos: Sequence[str], hub_repo: str | None) -> str:
    """Code that loads the model and what prepares its input."""
    model, processor = (*autos, plan.form.architecture)[0], PROCESSORS[plan.record.input]
    if plan.record.input == "videos" and provenance["tokenizer"]:
        processor = "AutoProcessor"
    imports = f"from transformers import {model}, {processor}"
    if not autos:
        imports = f"from transformers import {processor}\nfrom vidformers import {model}"
    directory, place = "", f'"{hub_repo}"'
    if hub_repo is None:
        directory, place = 'directory = "…"  # put the path of this directory here\n', "directory"
    return f"""```python
import vidformers
{imports}

{directory}processor = {processor}.from_pretrained({place})
model = {model}.from_pretrained({place})
```"""


def _places(provenance: dict[str, Any]) -> str:
    places = ((key or "the model", part["entry"]) for key, part in provenance["parts"].items())
    return ", ".join(f"{key} from {f'`{place}`' if place else 'the top of the file'}" for key, place in places)


def _sources(provenance: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for source in provenance["sources"]:
        yield source["file"], source["preset_url"] or "not stated", f"`{source['sha256']}`"


def _checks(provenance: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for report in provenance["parity"]:
        worst = report["worst"]
        numbers = (f"{worst['max_abs']:.2e}", f"{worst['relative']:.2e}", f"{report['tolerance']:g}")
        yield report["title"], str(report["stages"]), *numbers


def _changes(plan: Plan) -> str:
    """What of the files the directory lacks, and what it has that they lack."""
    left_out = {**{f"`{name}`": why for name, why in plan.found.left_out.items()}, **left_out_tensors(plan)}
    text = "Left out:" + ("".join(f"\n- {what}: {why}" for what, why in left_out.items()) or " nothing.")
    if plan.label_rows:
        text += f"\n\nOf the classifier's rows {len(plan.label_rows)} are kept, by the names of their classes."
    if plan.new_modules:
        text += f"\n\nNew, and to be trained: {', '.join(f'`{name}`' for name in plan.new_modules)}."
    return text


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ("---",) * len(headings), *rows))
