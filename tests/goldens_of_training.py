"""Recorded cases of the original training (`vjepa2_training`): committed ones and those of `$VIDFORMERS_GOLDENS`."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


ROOTS = [Path(__file__).parent / "goldens", Path(os.environ.get("VIDFORMERS_GOLDENS") or "/nowhere")]
CASES = {file.parent.name: file.parent for root in ROOTS for file in root.glob("vjepa2_training/*/case.json")}


def cases(kind: str) -> list[Any]:
    """Names of the cases of a kind, such as "a1_masks", as parameters of a test."""
    reason = f"no committed case of {kind}; $VIDFORMERS_GOLDENS names a folder with some"
    names = sorted(name for name in CASES if name.startswith(kind))
    return names or [pytest.param(kind, marks=pytest.mark.skip(reason=reason))]


def case(name: str) -> SimpleNamespace:
    """A case: what `case.json` says, `inputs`, `outputs` and `weights`; numbers of half precision in single."""
    loaded: dict[str, Any] = json.loads((CASES[name] / "case.json").read_text())
    for part in ("inputs", "outputs", "weights"):
        path = CASES[name] / f"{part}.safetensors"
        tensors = load_file(path) if path.exists() else {}
        loaded[part] = {key: each.float() if each.dtype == torch.float16 else each for key, each in tensors.items()}
    return SimpleNamespace(**loaded)


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
