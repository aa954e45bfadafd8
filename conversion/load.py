"""From original files to a model in memory: which form they have, its configuration, its tensors."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from vidformers.families import FAMILIES
from vidformers.models.records import Family, Part
from vidformers.progress import Progress, no_progress

from .configure import fields_of
from .found import Found
from .identify import (
    MODEL_CLASSES,
    Request,
    check_is_original,
    damaged_forms,
    family_of,
    identify,
    public_class,
    shortened,
    similar,
)
from .labels import Labels, keep_rows, names_of, rows_of
from .ops import ConversionError
from .rules import Form, Rule, check_ours, check_theirs, convert, forms_of
from .sources import Source, open_source


logger = logging.get_logger(__name__)


@dataclass
class Plan:
    """All that is known of a conversion before a value is read.

    Attributes:
        request: what it was planned for.
        found: the state dicts that the model is made of.
        record: the entry of the family's record that the model's configuration belongs to.
        rules: the form's rules for the model's configuration.
        model: the model, its parameters without memory until `build` fills them.
        new_modules: modules of the model that no file holds and that start as in a new one.
        processor_settings: arguments of the video processor that the original's settings tell.
        label_rows: rows of the original's classifier that are kept; empty for all.
    """

    request: Request
    found: Found
    record: Family | Part
    rules: Sequence[Rule]
    model: PreTrainedModel
    new_modules: Sequence[str]
    processor_settings: Mapping[str, Any]
    label_rows: Sequence[int] = ()

    @property
    def form(self) -> Form:
        """That of the files."""
        return self.found.form

    @property
    def family(self) -> Family:
        """That of the form."""
        return FAMILIES[self.form.family]


def load_original(
    path: str | os.PathLike,
    *,
    family: str | None = None,
    preset: str | None = None,
    probe: str | os.PathLike | None = None,
    checkpoint_key: str | None = None,
    probe_index: int = 0,
    dtype: torch.dtype = torch.float32,
    model_class: type[PreTrainedModel] | None = None,
    labels: Labels | None = None,
    keep_labels: Labels | None = None,
    progress: Progress = no_progress,
    **config_overrides: Any,
) -> PreTrainedModel:
    """Build one of our models from the files of an original implementation.

    What shapes don't fix comes from the original's `config.json`, the preset and `config_overrides`; later ones win.

    Args:
        path: the checkpoint (.pt, .npz, .safetensors, …), or an original directory that holds `model.safetensors`.
        family: `model_type` of the family, such as "vjepa2". By default the one whose files have these tensors.
        preset: name of a published checkpoint in `vidformers.families`; it gives what shapes don't tell.
        checkpoint_key: entry to take of a file with several versions of the model, such as V-JEPA 2's "encoder".
        probe, probe_index: the file of a classifier head that goes on top, and which one to take of several.
        dtype: type of the parameters.
        model_class: the class to build; by default the preset's, or the one that the files are made for.
        labels, keep_labels: names of all classes in order, and of those to keep: lists, or files (JSON or lines).
        progress: called as tensors are read.
        config_overrides: fields of the configuration (dictionaries for sub-configurations).

    Returns:
        The model in evaluation mode, on the CPU. It shares no memory with the file.

    Raises:
        ConversionError: files or fields that make no model; the message names each tensor or field.
    """
    request = Request(
        family, preset, checkpoint_key, probe_index, model_class, labels, keep_labels, **config_overrides
    )
    with planned(path, probe, request) as plan:
        return build(plan, dtype, progress)


@contextmanager
def planned(path: str | os.PathLike, probe: str | os.PathLike | None, request: Request) -> Iterator[Plan]:
    """Open the files, find out what they are and check every name and shape."""
    with opened(path, probe) as files:
        yield plan_of(files, request)


@contextmanager
def opened(path: str | os.PathLike, probe: str | os.PathLike | None) -> Iterator[dict[str, Source]]:
    """The original files: "checkpoint", of a directory its `model.safetensors`, and "probe", if there is one."""
    weights = Path(path) / "model.safetensors"
    weights = weights if weights.is_file() else Path(path)
    if weights.is_dir():
        check_is_original(weights)
    with ExitStack() as stack:
        files = {"checkpoint": weights} | ({} if probe is None else {"probe": probe})
        yield {name: stack.enter_context(open_source(file)) for name, file in files.items()}


def plan_of(files: Mapping[str, Source], request: Request) -> Plan:
    """Find out what opened files are and check every name and shape; no value is read."""
    found = identify(files, request)
    names, kept, rows, overrides = names_of(request.labels), names_of(request.keep_labels), [], request.overrides
    if kept is not None:
        rows = rows_of(kept, names)
        found = keep_rows(found, rows, len(names))
    if names is not None:
        overrides = {**overrides, "id2label": dict(enumerate(kept or names))}
    fields, processor_settings = fields_of(found, request.published, overrides)
    form = found.form
    model, rules = target(form, request.model_class or public_class(form.architecture), fields)
    new = [name for name in form.new_modules if getattr(model, name) is not None]
    record = FAMILIES[form.family].record(model.config.model_type)
    plan = Plan(request, found, record, rules, model, new, processor_settings, rows)
    _check_tensors(plan, files)
    return plan


def target(
    form: Form, model_class: type[PreTrainedModel], fields: Mapping[str, Any]
) -> tuple[PreTrainedModel, list[Rule]]:
    """The empty model with these fields of the configuration, and the form's rules for it."""
    config_class = model_class.config_class
    try:
        config = config_class(**fields, architectures=[form.architecture])
    except (StrictDataclassError, ValueError) as error:
        raise ConversionError(f"{config_class.__name__} refuses the configuration: {error}") from error
    return empty_model(model_class, config), list(form.rules(config))


def _check_tensors(plan: Plan, files: Mapping[str, Source]) -> None:
    """Raise unless the rules, the model and the files agree on every tensor."""
    found, ours = plan.found, shapes_of(plan.model)
    held = [name for name in ours if name.partition(".")[0] not in plan.new_modules]
    kinds = {"of our model": check_ours(plan.rules, held)}
    if not kinds["of our model"]:
        problems = check_theirs(plan.rules, found.shapes, ours)
        kinds = {kind: [f"{found.written(name)}: {text}" for name, text in each] for kind, each in problems.items()}
        kinds["not expected"] += [
            f"{name}: not expected (found shape {list(source.tensors[name].shape)})"
            for name, source in found.strays.items()
        ]
    count = sum(len(lines) for lines in kinds.values())
    if count:
        paths = " and ".join(str(path) for path in found.paths)
        lines = [line for kind, each in kinds.items() for line in shortened(each, kind)]
        lines += damaged_forms(plan.form, files)
        raise ConversionError(f"{paths}: {count} tensor(s) don't fit {plan.form.title}.\n  " + "\n  ".join(lines))


# --------------------------------------------------------------------------------------------------------- its model


def build(plan: Plan, dtype: torch.dtype, progress: Progress = no_progress) -> PreTrainedModel:
    """Read the tensors of a plan one by one into its model, in evaluation mode."""
    total, tensors = sum(len(entry.ours) for entry in plan.rules), {}
    for name, tensor in convert(plan.rules, plan.found.read):
        tensors[name] = tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)
        del tensor  # a view would keep its stack in memory while the next one is read
        progress("reading tensors", len(tensors), total)
    plan.model.load_state_dict(tensors, strict=not plan.new_modules, assign=True)
    _initialize(plan, dtype)
    plan.model.config.dtype = dtype
    return plan.model.eval()


def _initialize(plan: Plan, dtype: torch.dtype) -> None:
    """Give the modules that no file holds the values of a new model, and say so."""
    modules = [plan.model.get_submodule(name).to_empty(device="cpu") for name in plan.new_modules]
    for module in (*modules, *([plan.model] if modules else [])):  # A model may say more of modules that it has.
        plan.model._init_weights(module)
    for module in modules:
        module.to(dtype)
    if plan.new_modules:
        left_out = "; ".join(f"{what} ({why})" for what, why in left_out_tensors(plan).items())
        logger.warning(
            f"{plan.found.path}: {plan.form.architecture} has modules that the file does not hold. They are new, and "
            f"to be trained: {', '.join(plan.new_modules)}. Left out: {left_out}."
        )


def left_out_tensors(plan: Plan) -> dict[str, str]:
    """Why rules leave tensors of the files out; the keys tell how many, and the first one's name."""
    found, shapes = {}, plan.found.shapes
    for entry in plan.rules:
        if not entry.ours:
            found.setdefault(entry.why, []).extend(name for name in entry.theirs if name in shapes)
    return {
        f"`{names[0]}`" + (f" and {len(names) - 1} more" if len(names) > 1 else ""): why
        for why, names in found.items()
        if names
    }


def empty_model(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """A model whose parameters have shapes but no memory; its buffers are real."""

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        return parameter if parameter is None else nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(without_memory)
    try:
        return model_class(config)
    except ValueError as error:
        raise ConversionError(f"{model_class.__name__} cannot be built with this configuration: {error}") from error
    finally:
        hook.remove()


def class_named(name: str) -> type[PreTrainedModel]:
    """The model class that a user names; an error that lists them if there is no such."""
    if name not in MODEL_CLASSES:
        raise ConversionError(f"unknown model class {name!r}{similar(name, MODEL_CLASSES)}")
    return public_class(name)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def form_of(model: PreTrainedModel, title: str | None = None) -> Form:
    """The form that a model of ours goes back to: the noted one, else a whole file with rules for its tensors."""
    architecture, names = type(model).__name__, list(model.state_dict())
    forms = forms_of(family_of(model.config.model_type).model_type)
    for form in sorted(forms, key=lambda form: (form.title != title, form.on_request)):
        if form.architecture == architecture and not check_ours(form.rules(model.config), names):
            return form
    raise ConversionError(f"{type(model).__name__}: there is no original form of a model with these tensors.")
