"""What goes with converted weights: `provenance.json` for programs, `README.md` for readers."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .load import Plan, Progress, drop_reasons, no_progress
from .rooms import family_map
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
    paths = list(dict.fromkeys(part.source.path for part in plan.found.values()))
    urls = [preset.source, preset.probe] if preset else [None, None]
    provenance = {
        "family": plan.family.model_type,
        "architecture": plan.layout.architecture,
        "preset": plan.preset,
        "sources": [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": _hash(path, progress), "preset_url": url}
            for path, url in zip(paths, urls, strict=False)
        ],
        "parts": {
            name: {"file": part.source.path.name, "entry": part.entry, "prefix": part.prefix, "dtypes": part.dtypes}
            for name, part in plan.found.items()
        },
        "tokenizer": tokenizer and {"file": tokenizer.name, "sha256": sha256(tokenizer)},
        "left_out": dict(plan.left_out),
        "initialised": list(plan.initialised),
        "rule_table": rule_table_version(plan),
        "dtype": str(dtype).removeprefix("torch."),
        "weights": {path.name: _hash(path, progress) for path in sorted(folder.glob("*.safetensors"))},
        "parity": [report.summary for report in reports],
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", "utf-8")
    return provenance


def rule_table_version(plan: Plan) -> str:
    """A digest of the rules of the model's parts: it changes whenever a rule does."""
    parts = family_map(plan.family.model_type).parts
    text = repr([(name, parts[name].rules) for name in plan.found])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hash(path: Path, progress: Progress) -> str:
    return sha256(path, lambda done, total: progress(f"hashing {path.name}", done, total))


def write_card(folder: Path, plan: Plan, provenance: dict[str, Any]) -> None:
    """Write the model card."""
    (folder / "README.md").write_text(_front_matter(plan) + _body(folder, plan, provenance), "utf-8")


def _front_matter(plan: Plan) -> str:
    lines = ["library_name: transformers", f"tags: [video, {plan.family.model_type}, vidformers]"]
    if plan.preset and plan.family.presets[plan.preset].license:
        lines.insert(0, f"license: {plan.family.presets[plan.preset].license}")
    lines += [f"pipeline_tag: {TASKS[auto]}" for auto, name in _auto_classes(plan) if auto in TASKS]
    return "---\n" + "\n".join(lines) + "\n---\n\n"


def _auto_classes(plan: Plan) -> list[tuple[str, str]]:
    entries = [item for part in (plan.family, *plan.family.parts) for item in part.auto_models.items()]
    return [(auto, name) for auto, name in entries if name == plan.layout.architecture]


def _body(folder: Path, plan: Plan, provenance: dict[str, Any]) -> str:
    name = plan.preset or plan.layout.architecture
    auto = next((auto for auto, _ in _auto_classes(plan)), None)
    loader = auto or plan.layout.architecture
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
    parts = ", ".join(f"{part} from `{noted['entry'] or 'the file'}`" for part, noted in provenance["parts"].items())
    hub = plan.family.presets[plan.preset].hub if plan.preset else None
    twin = f" The Hub's [{hub}](https://huggingface.co/{hub}) was made of the same file." if hub else ""
    return f"""# {name}

{plan.family.title} weights ({provenance["dtype"]}), converted from the original checkpoint by
vidformers {provenance["libraries"]["vidformers"]}. Paper: {plan.family.paper}{twin}

```python
import vidformers
from transformers import {classes}
{imports}
processor = {processor}.from_pretrained("{folder_name(folder)}")
model = {loader}.from_pretrained("{folder_name(folder)}")
```

## Origin

| file | expected at | SHA-256 |
|---|---|---|
{sources}

Read: {parts}. {_changes(plan)}

## Checks at conversion

| compared with | stages | worst max abs | worst relative | tolerance |
|---|---|---|---|---|
{parity}

The whole record is in `{PROVENANCE}`; `vidformers verify DIR` repeats the checks.
"""


def _changes(plan: Plan) -> str:
    """What of the files the directory lacks, and what it has that they lack."""
    left_out = {**{f"`{entry}`": reason for entry, reason in plan.left_out.items()}, **drop_reasons(plan)}
    text = "Left out:" + ("".join(f"\n- {what}: {why}" for what, why in left_out.items()) or " nothing.")
    if plan.initialised:
        text += f"\n\nNew, and to be trained: {', '.join(f'`{name}`' for name in plan.initialised)}."
    return text


def _processor_class(plan: Plan, provenance: dict[str, Any]) -> str:
    """The Auto class that loads what prepares the model's input."""
    if plan.layout.videos is None:
        return "AutoTokenizer" if plan.layout.images is None else "AutoImageProcessor"
    return "AutoProcessor" if provenance["tokenizer"] else "AutoVideoProcessor"


def folder_name(folder: Path) -> str:
    """The name that a folder in the making will have."""
    return folder.name.removeprefix(".").partition(".unfinished-")[0]
