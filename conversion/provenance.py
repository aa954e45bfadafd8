"""`provenance.json`: where a directory's weights come from, written when they are converted and read ever after."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vidformers.progress import Progress

from .load import Plan
from .ops import ConversionError
from .rules import WRAPPERS, Entry, Form
from .sources import sha256


PROVENANCE = "provenance.json"
LIBRARIES = ("vidformers", "torch", "transformers", "safetensors")


def write_provenance(
    folder: Path,
    plan: Plan,
    dtype: torch.dtype,
    parity: Sequence[Mapping[str, Any]],
    progress: Progress,
    tokenizer: Path | None,
) -> dict[str, Any]:
    """Write where a directory's weights come from and, in `parity`, what was found when they were checked."""
    published = plan.request.published
    urls = [published.source, published.probe] if published else [None, None]
    provenance = {
        "family": plan.family.model_type,
        "architecture": plan.form.architecture,
        "form": plan.form.title,
        "preset": plan.request.preset,
        "sources": [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path, progress), "preset_url": url}
            for path, url in zip(plan.found.paths, urls, strict=False)
        ],
        "parts": {
            key: {"file": part.source.path.name, "entry": part.place, "prefix": part.prefix, "dtypes": part.dtypes}
            for key, part in plan.found.items()
        },
        "tokenizer": tokenizer and {"file": tokenizer.name, "sha256": sha256(tokenizer)},
        "left_out": dict(plan.found.left_out),
        "label_rows": list(plan.label_rows),
        "initialized": list(plan.new_modules),
        "dtype": str(dtype).removeprefix("torch."),
        "weights": {path.name: sha256(path, progress) for path in sorted(folder.glob("*.safetensors"))},
        "parity": parity,
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", "utf-8")
    return provenance


def read_provenance(directory: Path) -> dict[str, Any]:
    """What `convert_checkpoint` noted, empty for a directory from elsewhere."""
    file = directory / PROVENANCE
    try:
        return json.loads(file.read_text("utf-8")) if file.exists() else {}
    except ValueError as error:
        raise ConversionError(f"{file}: no readable JSON ({error}); convert again, or remove it.") from error


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
            place, prefix = own[0][0], own[0][1]["prefix"]
            dtypes = sorted({dtype for _, each in own for dtype in each["dtypes"]})
            noted[key] = {"entry": place, "prefix": WRAPPERS.match(prefix).group(), "dtypes": dtypes}
    return noted


def _place_in(entry: Entry, noted: str) -> str | None:
    """Where an entry stands if a state dict at the noted path is it or a part of it."""
    for place in entry.all_places:
        holder, is_list, _ = place.partition("{index}")
        if is_list and noted.startswith(holder):
            return noted
        if noted == place or (place and noted.startswith(f"{place}/")):
            return place
    return None
