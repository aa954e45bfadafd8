"""What goes with converted weights: `provenance.json` for programs, `README.md` for readers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .load import Plan, Progress, left_out_tensors, no_progress
from .rules import WRAPPERS, Entry, Form
from .sources import sha256
from .verify import PROVENANCE, Report


LIBRARIES = ("vidformers", "torch", "transformers", "safetensors")
TASKS = {"AutoModelForVideoClassification": "video-classification"}


def write_provenance(
    folder: Path,
    plan: Plan,
    dtype: torch.dtype,
    reports: Sequence[Report],
    progress: Progress = no_progress,
    tokenizer: Path | None = None,
) -> dict[str, Any]:
    """Write where a directory's weights come from and what was found when they were checked."""
    preset = plan.family.presets[plan.preset] if plan.preset else None
    urls = [preset.source, preset.probe] if preset else [None, None]
    provenance = {
        "family": plan.family.model_type,
        "architecture": plan.form.architecture,
        "form": plan.form.title,
        "preset": plan.preset,
        "sources": [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": _hash(path, progress), "preset_url": url}
            for path, url in zip(plan.found.paths, urls, strict=False)
        ],
        "parts": {
            key: {"file": part.source.path.name, "entry": part.place, "prefix": part.prefix, "dtypes": part.dtypes}
            for key, part in plan.found.items()
        },
        "tokenizer": tokenizer and {"file": tokenizer.name, "sha256": sha256(tokenizer)},
        "left_out": dict(plan.left_out),
        "initialised": list(plan.new_modules),
        # A digest of the rules: it changes whenever one of them does.
        "rule_table": hashlib.sha256(repr(plan.rules).encode()).hexdigest()[:12],
        "dtype": str(dtype).removeprefix("torch."),
        "weights": {path.name: _hash(path, progress) for path in sorted(folder.glob("*.safetensors"))},
        "parity": [report.summary for report in reports],
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", "utf-8")
    return provenance


def noted_entries(form: Form, provenance: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Place ("entry"), prefix and dtypes of each entry of a form, as far as a provenance notes them.

    Before forms had titles, provenances noted smaller parts under other names, several to an entry of today; their
    places and the wrappers in their prefixes say which entry they belong to.
    """
    parts, noted = provenance.get("parts", {}), {}
    for key, entry in form.entries.items():
        own = [parts[key]] if key in parts else list(parts.values())
        own = [(place, part) for part in own if (place := _place_in(entry, part["entry"])) is not None]
        if own:
            place, part = own[0]
            bare = part["prefix"]
            while wrapper := next((each for each in WRAPPERS if bare.startswith(each)), None):
                bare = bare.removeprefix(wrapper)
            dtypes = sorted({dtype for _, each in own for dtype in each["dtypes"]})
            noted[key] = {"entry": place, "prefix": part["prefix"].removesuffix(bare), "dtypes": dtypes}
    return noted


def _place_in(entry: Entry, noted: str) -> str | None:
    """Where an entry stands if a state dict at the noted path is it or a part of it."""
    for place in (*entry.places, *entry.versions):
        holder, is_list, _ = place.partition("{index}")
        if is_list and noted.startswith(holder):
            return noted
        if noted == place or (place and noted.startswith(f"{place}/")):
            return place
    return None


def _hash(path: Path, progress: Progress) -> str:
    return sha256(path, lambda done, total: progress(f"hashing {path.name}", done, total))


def write_card(folder: Path, plan: Plan, provenance: dict[str, Any], hub_repo: str | None = None) -> None:
    """Write the model card, for a Hub repository or for a directory that will be anywhere."""
    (folder / "README.md").write_text(_front_matter(plan) + _body(plan, provenance, hub_repo), "utf-8")


def _front_matter(plan: Plan) -> str:
    lines = ["library_name: transformers", f"tags: [video, {plan.family.model_type}, vidformers]"]
    if plan.preset and plan.family.presets[plan.preset].license:
        lines.insert(0, f"license: {plan.family.presets[plan.preset].license}")
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
    hub = plan.family.presets[plan.preset].hub if plan.preset else None
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

| file | expected at | SHA-256 |
|---|---|---|
{sources}

Read as {plan.form.title}: {parts}. {_changes(plan)}

## Checks at conversion

| compared with | stages | worst max abs | worst relative | tolerance |
|---|---|---|---|---|
{parity}

The whole record is in `{PROVENANCE}`; `vidformers verify DIR` repeats the checks.
"""


def _changes(plan: Plan) -> str:
    """What of the files the directory lacks, and what it has that they lack."""
    left_out = {**{f"`{name}`": why for name, why in plan.left_out.items()}, **left_out_tensors(plan)}
    text = "Left out:" + ("".join(f"\n- {what}: {why}" for what, why in left_out.items()) or " nothing.")
    if plan.new_modules:
        text += f"\n\nNew, and to be trained: {', '.join(f'`{name}`' for name in plan.new_modules)}."
    return text


def _processor_class(plan: Plan, provenance: dict[str, Any]) -> str:
    """The Auto class that loads what prepares the model's input."""
    if not plan.form.videos:
        return "AutoImageProcessor" if plan.form.images else "AutoTokenizer"
    return "AutoProcessor" if provenance["tokenizer"] else "AutoVideoProcessor"
