"""The model card of a converted directory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .load import Plan, left_out_tensors
from .provenance import PROVENANCE


TASKS = {"AutoModelForVideoClassification": "video-classification"}


def write_card(folder: Path, plan: Plan, provenance: dict[str, Any], hub_repo: str | None = None) -> None:
    """Write the model card, for a Hub repository or for a directory that will be anywhere."""
    entries = [item for part in (plan.family, *plan.family.parts) for item in part.auto_models.items()]
    autos = [auto for auto, name in entries if name == plan.form.architecture]
    sections = (
        _front_matter(plan, autos),
        f"# {plan.preset or plan.form.architecture}",
        _introduction(plan, provenance),
        _example(plan, provenance, autos, hub_repo),
        "## Origin" + _license(plan),
        _table(("file", "expected at", "SHA-256"), _sources(provenance)),
        f"Read as {plan.form.title}: {_places(provenance)}. {_changes(plan)}",
        "## Checks at conversion",
        _table(("compared with", "stages", "worst max abs", "worst relative", "tolerance"), _checks(provenance)),
        f"The whole record is in `{PROVENANCE}`; `vidformers verify DIR` repeats the checks.",
    )
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", "utf-8")


def _front_matter(plan: Plan, autos: list[str]) -> str:
    lines = ["library_name: transformers", f"tags: [video, {plan.family.model_type}, vidformers]"]
    if plan.published and plan.published.license:
        lines.insert(0, f"license: {plan.published.license}")
    lines += [f"pipeline_tag: {TASKS[auto]}" for auto in autos if auto in TASKS]
    return "\n".join(["---", *lines, "---"])


def _introduction(plan: Plan, provenance: dict[str, Any]) -> str:
    hub = plan.published and plan.published.hub
    twin = f" The Hub's [{hub}](https://huggingface.co/{hub}) was made of the same file." if hub else ""
    return (
        f"{plan.family.title} weights ({provenance['dtype']}), converted from the original checkpoint by\n"
        f"vidformers {provenance['libraries']['vidformers']}. Paper: {plan.family.paper}{twin}"
    )


def _example(plan: Plan, provenance: dict[str, Any], autos: list[str], hub_repo: str | None) -> str:
    """Code that loads the model and what prepares its input."""
    model, processor = (autos or [plan.form.architecture])[0], "AutoTokenizer"
    if plan.form.videos:
        processor = "AutoProcessor" if provenance["tokenizer"] else "AutoVideoProcessor"
    elif plan.form.images:
        processor = "AutoImageProcessor"
    place = f'"{hub_repo}"' if hub_repo else "directory"
    lines = [
        "```python",
        "import vidformers",
        f"from transformers import {model}, {processor}" if autos else f"from transformers import {processor}",
        *([] if autos else [f"from vidformers import {model}"]),
        "",
        *([] if hub_repo else ['directory = "…"  # put the path of this directory here']),
        f"processor = {processor}.from_pretrained({place})",
        f"model = {model}.from_pretrained({place})",
        "```",
    ]
    return "\n".join(lines)


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


def _license(plan: Plan) -> str:
    """What must be said of a published checkpoint that comes without a license."""
    if plan.published is None or plan.published.license or not plan.published.source:
        return ""
    return "\n\nWhoever publishes the checkpoint states no license for it."


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
