"""Numerical proof of a conversion: two runs of a model, compared stage by stage.

A stage is a tensor that a forward pass leaves behind, named after the output's fields: "video.hidden_states.3" is the
output of the third block in the call "video". Reports say for each stage how far two implementations are apart, and
which stage is the first that is too far.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from vidformers.families import FAMILIES
from vidformers.models.records import Family

from .core import ConversionError, Layout, convert, expand
from .load import FoundPart, Progress, find_parts, no_progress, public_class, weights_of
from .rooms import family_map
from .sources import SafetensorsSource, open_source, sha256


PROVENANCE = "provenance.json"

# Largest difference that is rounding, relative to the largest value of a stage: fp32 sums in another order stay below
# 1e-5 over 40 blocks; a 16-bit type keeps 8 (bfloat16) or 11 bits of every activation.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
RELOAD_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Stage:
    """How far two values of one stage are apart.

    Attributes:
        max_abs: the largest difference.
        relative: `max_abs` over the largest expected value.
        cosine: of the two as vectors.
        passed: whether `relative` is within the tolerance; a NaN never is.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    relative: float
    cosine: float
    passed: bool


@dataclass(frozen=True)
class Report:
    """The stages of one comparison, in the order of the computation."""

    title: str
    tolerance: float
    stages: tuple[Stage, ...]

    @property
    def passed(self) -> bool:
        """Whether every stage is within the tolerance, and there is one."""
        return bool(self.stages) and all(stage.passed for stage in self.stages)

    @property
    def first_diverging(self) -> str | None:
        """The first stage beyond the tolerance."""
        return next((stage.name for stage in self.stages if not stage.passed), None)

    @property
    def summary(self) -> dict[str, Any]:
        """The report as plain values."""
        worst = max(self.stages, key=lambda stage: stage.relative, default=None)
        return {
            "title": self.title,
            "passed": self.passed,
            "tolerance": self.tolerance,
            "stages": len(self.stages),
            "worst": worst and asdict(worst),
        }

    def __str__(self) -> str:
        width = max([len(stage.name) for stage in self.stages] + [5])
        rows = [f"{self.title} (relative tolerance {self.tolerance:g})"]
        rows.append(f"  {'stage':{width}}  {'max abs':>9}  {'relative':>9}  {'cosine':>10}  shape")
        for stage in self.stages:
            mark = "" if stage.passed else "  <- differs"
            if stage.name == self.first_diverging:
                mark = "  <- first that differs"
            rows.append(
                f"  {stage.name:{width}}  {stage.max_abs:9.2e}  {stage.relative:9.2e}  {stage.cosine:10.7f}  "
                f"{list(stage.shape)}{mark}"
            )
        return "\n".join(rows)


def compare(
    title: str, expected: Mapping[str, torch.Tensor], actual: Mapping[str, torch.Tensor], tolerance: float
) -> Report:
    """Compare every expected stage; one that is missing or of another shape differs infinitely."""
    return Report(
        title, tolerance, tuple(_stage(name, expected[name], actual.get(name), tolerance) for name in expected)
    )


def _stage(name: str, expected: torch.Tensor, actual: torch.Tensor | None, tolerance: float) -> Stage:
    if actual is None or actual.shape != expected.shape:
        return Stage(name, tuple(actual.shape) if actual is not None else (), float("inf"), float("inf"), 0.0, False)
    left, right = expected.double().flatten(), actual.double().flatten()
    max_abs = (left - right).abs().max().item()
    relative = max_abs / max(left.abs().max().item(), 1e-30)
    cosine = torch.nn.functional.cosine_similarity(left, right, dim=0).item()
    return Stage(name, tuple(expected.shape), max_abs, relative, cosine, relative <= tolerance)


@torch.no_grad()
def run_stages(model: PreTrainedModel, calls: Mapping[str, Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Every tensor that the model returns, hidden states included, for each named call with keyword arguments."""
    stages = {}
    for call, inputs in calls.items():
        output = model(**inputs, output_hidden_states=True, return_dict=True)
        stages |= {f"{call}.{name}": tensor.float() for name, tensor in _named_tensors(output)}
    return stages


def _named_tensors(output: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a model's output by dotted name, hidden states before what follows from them."""
    if isinstance(output, torch.Tensor):
        yield "", output
        return
    items = sorted(output.items(), key=lambda item: item[0] != "hidden_states")
    for name, value in items:
        if isinstance(value, ModelOutput):
            value = dict(value)
        if isinstance(value, (tuple, list)):
            value = {str(index): entry for index, entry in enumerate(value)}
        for inner, tensor in _named_tensors(value):
            yield f"{name}.{inner}".removesuffix("."), tensor


def adapter(family: Family) -> ModuleType:
    """The module that knows how to call a family's models and its original code."""
    return import_module(f"{__package__}.{family.model_type}.original")


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = [name for family in FAMILIES.values() for name in family.model_types]
    raise ConversionError(f"unknown model type {model_type!r}; there are {', '.join(known)}.")


def layout_of(family: Family, architecture: str, parts: Iterable[str] = ()) -> Layout:
    """The layout of a model class: the first, or the one with the given parts where the class has several."""
    layouts = [layout for layout in family_map(family.model_type).layouts if layout.architecture == architecture]
    if not layouts:
        raise ConversionError(f"{architecture} has no conversion map.")
    return next((layout for layout in layouts if set(parts) <= set(layout.parts)), layouts[0])


def compare_reloaded(
    directory: Path, model_class: type[PreTrainedModel], expected: Mapping[str, torch.Tensor], calls: Mapping, dtype
) -> Report:
    """Load a directory and compare its stages with those recorded before it was written."""
    model = model_class.from_pretrained(directory, dtype=dtype).eval()
    return compare("reloaded directory", expected, run_stages(model, calls), RELOAD_TOLERANCE)


def compare_with_original(
    model: PreTrainedModel, layout: Layout, found: Mapping[str, FoundPart], repository: str | os.PathLike
) -> Report:
    """Run the original code from a checkout of its repository on the same weights and compare it with the model."""
    original = adapter(family_of(model.config.model_type))
    calls = getattr(original, "original_calls", original.example_calls)(model.config, layout.architecture)
    expected = original.original_stages(Path(repository), model.config, found, calls)
    return compare("original code", expected, run_stages(model, calls), TOLERANCES[model.dtype])


# ------------------------------------------------------------------------------------------- a directory on its own


def verify_directory(
    directory: str | os.PathLike,
    *,
    source: str | os.PathLike | None = None,
    probe: str | os.PathLike | None = None,
    recording: str | os.PathLike | None = None,
    original_repo: str | os.PathLike | None = None,
    progress: Progress = no_progress,
) -> list[Report]:
    """Check a converted directory.

    Always: its weight files have the recorded SHA-256, and the model that loads from it returns finite numbers.

    Args:
        directory: what `convert_checkpoint` wrote, or any directory in its format.
        source: the original checkpoint or directory, whose tensors the directory must hold bit for bit.
        probe: the original classifier head, likewise.
        recording: a folder with `inputs.safetensors` (arguments of the model) and `outputs.safetensors` (fields of
            its output), which the model must reproduce.
        original_repo: a checkout of the original code to run beside the model; needs `source`.
        progress: called as tensors are compared.

    Raises:
        ConversionError: for a file that has changed or can't be read.
    """
    directory = Path(directory)
    provenance = read_provenance(directory)
    for name, digest in provenance.get("weights", {}).items():
        if not (directory / name).exists() or sha256(directory / name) != digest:
            raise ConversionError(f"{directory / name}: missing or changed since it was converted; convert it again.")
    model = load_directory(directory)
    family = family_of(model.config.model_type)
    layout = layout_of(family, type(model).__name__, provenance.get("parts", ()))
    reports = [_finite_report(model, adapter(family).example_calls(model.config, layout.architecture))]
    if recording is not None:
        reports.append(_compare_recording(model, Path(recording)))
    if source is not None:
        with ExitStack() as stack:
            files = {"checkpoint": stack.enter_context(open_source(weights_of(source)))}
            if probe is not None:
                files["probe"] = stack.enter_context(open_source(probe))
            parts = provenance.get("parts", {})
            found = find_parts(family, layout, files, {name: part["entry"] for name, part in parts.items()})
            reports.append(compare_tensors(directory, layout, found, model.config, progress))
            if original_repo is not None:
                reports.append(compare_with_original(model, layout, found, original_repo))
    elif original_repo is not None:
        raise ConversionError("running the original code needs the original checkpoint: source.")
    return reports


def load_directory(directory: Path) -> PreTrainedModel:
    """The model of a directory, of the class that its configuration names, in the type that it was saved in."""
    try:
        architecture = json.loads((directory / "config.json").read_text("utf-8"))["architectures"][0]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{directory}: no readable config.json that names an architecture ({error}).") from error
    known = [name for family in FAMILIES.values() for name in family.model_classes]
    if architecture not in known:
        raise ConversionError(f"{directory}: holds a {architecture}; there are {', '.join(known)}.")
    try:
        return public_class(architecture).from_pretrained(directory, dtype="auto").eval()
    except (OSError, SafetensorError) as error:
        raise ConversionError(f"{directory}: its weights cannot be read ({error}).") from error


def read_provenance(directory: Path) -> dict[str, Any]:
    """What `convert_checkpoint` noted, empty for a directory from elsewhere."""
    file = directory / PROVENANCE
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def _finite_report(model: PreTrainedModel, calls: Mapping) -> Report:
    """A report in which a stage with a NaN or an infinity differs."""
    stages = run_stages(model, calls)
    return compare("finite outputs", {name: stage.nan_to_num() for name, stage in stages.items()}, stages, 0.0)


def _compare_recording(model: PreTrainedModel, folder: Path) -> Report:
    try:
        inputs, outputs = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    except (OSError, SafetensorError) as error:
        raise ConversionError(
            f"{folder}: no readable inputs.safetensors and outputs.safetensors ({error})."
        ) from error
    expected = {f"recording.{name}": tensor for name, tensor in outputs.items()}
    try:
        actual = run_stages(model, {"recording": inputs})
    except TypeError as error:
        raise ConversionError(f"{folder}: its inputs are not arguments of {type(model).__name__}: {error}") from error
    return compare("recorded outputs", expected, actual, TOLERANCES[model.dtype])


def compare_tensors(
    directory: Path, layout: Layout, found: Mapping[str, FoundPart], config: Any, progress: Progress = no_progress
) -> Report:
    """Compare a directory's tensors with those of the original files, in the directory's type; all must be equal."""
    weights = {}
    sources = [SafetensorsSource(path) for path in sorted(directory.glob("*.safetensors"))]
    for written in sources:
        weights |= dict.fromkeys(written.tensors, written)
    stages, total = [], len(weights)
    maps = family_map(family_of(config.model_type).model_type)
    for name, part in found.items():
        pairs = expand(maps.parts[name].rules, layout.config_of(name, config), layout.parts[name])
        for target, tensor in convert(pairs, part.read):
            actual = weights[target].read(target) if target in weights else None
            expected = tensor if actual is None else tensor.to(actual.dtype)
            if actual is not None and torch.equal(expected, actual):
                stages.append(Stage(target, tuple(actual.shape), 0.0, 0.0, 1.0, True))
            else:
                stages.append(_stage(target, expected, actual, 0.0))
            progress("comparing tensors", len(stages), total)
    for written in sources:
        written.close()
    return Report("tensors of the original files", 0.0, tuple(stages))


def failures(reports: Sequence[Report]) -> str:
    """The reports that failed, as text; empty if none did."""
    return "\n\n".join(str(report) for report in reports if not report.passed)
