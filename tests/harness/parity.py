"""Parity: what the original code computed, recorded in golden cases, comes out of our models."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from vidformers import load_original
from vidformers.conversion.verify import Report

from .compare import assert_close, compare
from .family_spec import FamilySpec, GoldenCase, GoldenRun
from .family_test import FamilyTest, goldens, over


COMMITTED = Path(__file__).parents[1] / "goldens"
MOST_COMMITTED_BYTES = 3_000_000


def golden_folders(spec: FamilySpec) -> dict[str, Path]:
    """The family's cases by name: committed ones, and those of `$VIDFORMERS_GOLDENS`."""
    more = os.environ.get("VIDFORMERS_GOLDENS")
    roots = [COMMITTED / (spec.committed_folder or spec.family.model_type)]
    roots += [Path(more) / (spec.goldens_folder or spec.family.model_type)] if more else []
    files = [file for root in roots for file in sorted(root.glob("*/case.json"))]
    return {file.parent.name: file.parent for file in reversed(files)}


def unknown_cases(specs: Iterable[FamilySpec]) -> set[str]:
    """Recorded cases of families that share a folder which none of the specs names."""
    known = {name for spec in specs for name in (*(case.folder for case in spec.goldens), *spec.later_goldens)}
    return {name for spec in specs for name in golden_folders(spec)} - known


def find_case(spec: FamilySpec, case: GoldenCase) -> Path:
    """The folder of a case; the test is skipped, with the reason, where only `$VIDFORMERS_GOLDENS` would have it."""
    folder = golden_folders(spec).get(case.folder)
    if folder is None and not case.committed:
        raise SkipTest(f"{case.folder} is not among the committed cases; $VIDFORMERS_GOLDENS names a folder with more")
    assert folder is not None, f"the committed golden case {case.folder} is missing"
    return folder


def load_arguments(run: GoldenRun, folder: Path) -> dict[str, Any]:
    """Arguments of `load_original` for a case."""
    return run.arguments(folder, json.loads((folder / "case.json").read_text())["hyperparameters"])


def recorded(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Inputs and outputs of a case."""
    return load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")


def run_outputs(run: GoldenRun, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a model makes of the recorded inputs."""
    with torch.no_grad():
        return run.outputs(model, inputs)


def parity(case: GoldenCase, run: GoldenRun, model: PreTrainedModel, folder: Path) -> Report:
    """The report of a run's outputs beside the recorded ones."""
    inputs, expected = recorded(folder)
    actual = run_outputs(run, model, inputs)
    pair = (counted(case, inputs, {name: tensors[name] for name in actual}) for tensors in (expected, actual))
    return compare(f"{case.folder} {run.label}".strip(), *pair, case.tolerance)


def counted(
    case: GoldenCase, inputs: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Outputs reduced to the entries that mean something."""
    return {
        name: tensor[case.counted[name](inputs)] if name in case.counted else tensor
        for name, tensor in outputs.items()
    }


class ParityMixin(FamilyTest):
    """Tests against the recordings."""

    @over(goldens, ["eager", "sdpa"])
    def test_golden(self, golden: GoldenCase, backend: str):
        folder = find_case(self.spec, golden)
        inputs, expected = recorded(folder)
        reproduced = set()
        for run in golden.runs:
            model = load_original(**load_arguments(run, folder))
            model.set_attn_implementation(backend)
            actual = run_outputs(run, model, inputs)
            assert_close(
                f"{golden.folder} {run.label} ({backend})",
                counted(golden, inputs, {name: expected[name] for name in actual}),
                counted(golden, inputs, actual),
                golden.tolerance,
            )
            reproduced |= set(actual)
        assert reproduced | set(golden.unread) == set(expected), "recorded outputs that no run reproduces"

    def test_committed_selection(self):
        root = COMMITTED / (self.spec.committed_folder or self.spec.family.model_type)
        committed = {case.folder for case in self.spec.goldens if case.committed}
        assert committed, "the repository has no case of this family"
        assert not {case.folder for case in self.spec.goldens} & set(self.spec.later_goldens)
        assert committed <= {folder.name for folder in root.iterdir()} <= committed | set(self.spec.later_goldens)
        assert sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) <= MOST_COMMITTED_BYTES
