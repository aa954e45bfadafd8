"""Numerical proof of a conversion: two runs of a model, compared stage by stage.

A stage is a tensor that a forward pass leaves behind, named after the output's fields: "video.hidden_states.3" is the
output of the third block in the call "video". Reports say for each stage how far two implementations are apart, and
which stage is the first that is too far.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
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

from vidformers.progress import Progress, no_progress

from .found import Found
from .identify import MODEL_CLASSES, Request, family_of, identify, public_class
from .labels import keep_rows
from .load import form_of, opened
from .ops import ConversionError
from .provenance import noted_entries, read_provenance
from .rules import Rule, convert
from .sources import Source, open_source, sha256


# Largest difference that is rounding, relative to the largest value of a stage: fp32 sums in another order stay below
# 1e-5 over 40 blocks; a 16-bit type keeps 8 (bfloat16) or 11 bits of every activation.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
RELOAD_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Stage:
    """How far two values of one stage are apart; infinitely where one is missing or has another shape.

    Attributes:
        max_abs: the largest difference.
        limit: the largest that passes.
        relative: `max_abs` over the largest expected value.
        cosine: of the two as vectors.
    """

    name: str
    shape: str
    max_abs: float
    limit: float
    relative: float
    cosine: float

    @property
    def passed(self) -> bool:
        """Whether the largest difference is within the limit; a NaN never is."""
        return self.max_abs <= self.limit


@dataclass(frozen=True)
class Report:
    """The stages of one comparison, in the order of the computation.

    Attributes:
        tolerance: the largest difference that passes, relative to a stage's largest value or what stands in for it;
            each stage has the limit that follows.
        reason: why that much.
    """

    title: str
    tolerance: float
    stages: tuple[Stage, ...]
    reason: str = "relative"

    @property
    def passed(self) -> bool:
        """Whether every stage is within its limit, and there is one."""
        return bool(self.stages) and self.first_diverging is None

    @property
    def first_diverging(self) -> str | None:
        """The first stage beyond its limit."""
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
        width = max([5, *(len(stage.name) for stage in self.stages)])
        lines = [
            f"{self.title}: {self.first_diverging or 'nothing'} diverges (tolerance {self.tolerance:g}: "
            f"{self.reason})",
            f"  {'stage':{width}}  {'max abs':>9}  {'limit':>9}  {'relative':>9}  {'cosine':>10}  shape",
        ]
        for stage in self.stages:
            mark = "" if stage.passed else "  <- diverges"
            if stage.name == self.first_diverging:
                mark = "  <== first stage that diverges"
            lines.append(
                f"  {stage.name:{width}}  {stage.max_abs:9.2e}  {stage.limit:9.2e}  {stage.relative:9.2e}  "
                f"{stage.cosine:10.7f}  {stage.shape}{mark}"
            )
        return "\n".join(lines)


def compare(
    title: str, expected: Mapping[str, torch.Tensor], actual: Mapping[str, torch.Tensor], tolerance: float
) -> Report:
    """Compare every expected stage; `actual` may hold more."""
    stages = []
    for name, tensor in expected.items():
        limit = tolerance * tensor.double().abs().max().item() if tensor.numel() else 0.0
        stages.append(compare_stage(name, tensor, actual.get(name), limit))
    return Report(title, tolerance, tuple(stages))


def compare_stage(name: str, expected: torch.Tensor, actual: torch.Tensor | None, limit: float) -> Stage:
    """Compare one stage, of which the largest difference that passes is given."""
    shape = str(list(expected.shape))
    if actual is None or actual.shape != expected.shape:
        found = "missing" if actual is None else f"found {list(actual.shape)}"
        return Stage(name, f"{shape}, {found}", float("inf"), limit, float("inf"), 0.0)
    same_kind = (expected.dtype, expected.device) == (actual.dtype, actual.device)
    if not expected.numel() or (same_kind and torch.equal(expected, actual)):
        return Stage(name, shape, 0.0, limit, 0.0, 1.0)
    left, right = (tensor.detach().cpu().double().flatten() for tensor in (expected, actual))
    max_abs = (left - right).abs().max().item()
    relative = max_abs / max(left.abs().max().item(), 1e-30)
    return Stage(name, shape, max_abs, limit, relative, torch.cosine_similarity(left, right, dim=0).item())


@torch.no_grad()
def run_stages(model: PreTrainedModel, calls: Mapping[str, Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Every tensor that the model returns, hidden states included, for each named call with keyword arguments."""
    stages = {}
    for call, inputs in calls.items():
        output = model(**inputs, output_hidden_states=True, return_dict=True)
        stages |= {f"{call}.{name}": tensor.float() for name, tensor in named_tensors(output)}
    return stages


def named_tensors(output: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a model's output by dotted name, recorded states before what follows from them."""
    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key in sorted(output, key=lambda key: key not in ("hidden_states", "attentions")):
            yield from named_tensors(output[key], f"{name}.{key}".lstrip("."))
    elif isinstance(output, (tuple, list)):
        for index, entry in enumerate(output):
            yield from named_tensors(entry, f"{name}.{index}".lstrip("."))


def adapter(family: str) -> ModuleType:
    """The module that knows how to call the models and the original code of a family, by its `model_type`."""
    return import_module(f"{__package__}.{family}.original")


def compare_with_original(model: PreTrainedModel, found: Found, repository: str | os.PathLike) -> Report:
    """Run the original code from a checkout of its repository on the same weights and compare it with the model."""
    original = adapter(found.form.family)
    calls = getattr(original, "original_calls", original.example_calls)(model.config, found.form.architecture)
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
    """Check a converted directory: the SHA-256 of its weights, its model's numbers, and what else is given.

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
    _check_digests(directory, provenance)
    model = load_directory(directory)
    reports = [_finite_report(model)]
    if recording is not None:
        reports.append(_compare_recording(model, Path(recording)))
    if source is None and original_repo is not None:
        raise ConversionError("running the original code needs the original checkpoint: source.")
    if source is not None:
        with opened(source, probe) as files:
            found = _identify_again(files, model, provenance)
            reports.append(compare_tensors(directory, found.form.rules(model.config), found, progress))
            if original_repo is not None:
                reports.append(compare_with_original(model, found, original_repo))
    return reports


def _check_digests(directory: Path, provenance: Mapping[str, Any]) -> None:
    for name, digest in provenance.get("weights", {}).items():
        if not (directory / name).exists() or sha256(directory / name) != digest:
            raise ConversionError(f"{directory / name}: missing or changed since it was converted; convert it again.")


def _identify_again(files: Mapping[str, Source], model: PreTrainedModel, provenance: Mapping[str, Any]) -> Found:
    """The state dicts of a model's original files at the places, with the rows, that were noted."""
    form, rows = form_of(model, provenance.get("form")), provenance.get("label_rows")
    places = {key: entry["entry"] for key, entry in noted_entries(form, provenance).items()}
    found = identify(files, Request(form.family, model_class=type(model)), places)
    return keep_rows(found, rows) if rows else found


def load_directory(directory: Path) -> PreTrainedModel:
    """The model of a directory, of the class that its configuration names, in the type that it was saved in."""
    if not directory.is_dir():
        raise ConversionError(f"{directory}: there is no such directory. Give one that `vidformers convert` has made.")
    try:
        architecture = json.loads((directory / "config.json").read_text("utf-8"))["architectures"][0]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{directory}: no readable config.json that names an architecture ({error}).") from error
    if architecture not in MODEL_CLASSES:
        raise ConversionError(f"{directory}: holds a {architecture}; there are {', '.join(MODEL_CLASSES)}.")
    try:
        return public_class(architecture).from_pretrained(directory, dtype="auto").eval()
    except (OSError, SafetensorError) as error:
        raise ConversionError(f"{directory}: its weights cannot be read ({error}).") from error


def _finite_report(model: PreTrainedModel) -> Report:
    """A report in which a stage with a NaN or an infinity differs."""
    original = adapter(family_of(model.config.model_type).model_type)
    stages = run_stages(model, original.example_calls(model.config, type(model).__name__))
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


def compare_tensors(directory: Path, rules: Iterable[Rule], found: Found, progress: Progress) -> Report:
    """Compare a directory's tensors with those of the original files, in the directory's type; all must be equal."""
    stages: list[Stage] = []
    with ExitStack() as stack:
        sources = [stack.enter_context(open_source(path)) for path in sorted(directory.glob("*.safetensors"))]
        weights = {name: source for source in sources for name in source.tensors}
        for name, tensor in convert(rules, found.read):
            actual = weights[name].read(name) if name in weights else None
            stages.append(compare_stage(name, tensor if actual is None else tensor.to(actual.dtype), actual, 0.0))
            del tensor, actual  # a view would keep its stack in memory while the next one is read
            progress("comparing tensors", len(stages), len(weights))
    return Report("tensors of the original files", 0.0, tuple(stages), "every bit counts")
