"""From original files to a model in memory: which family and class they are, their configuration, their tensors."""

import difflib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from vidformers.families import FAMILIES
from vidformers.models.records import Family

from .core import (
    ConversionError,
    FamilyMap,
    Layout,
    Pair,
    Part,
    check_sources,
    check_targets,
    convert,
    expand,
    expand_names,
)
from .rooms import family_map
from .sources import Source, open_source


logger = logging.get_logger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with what is going on, the amount done and the amount in all."""


def no_progress(activity: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class FoundPart:
    """A state dict as it stands in a file.

    Attributes:
        source: the file.
        entry: its path in the file.
        prefix: what every tensor name begins with before the names that the rules use.
        names: for each name that the rules use, the tensor's full name in the file.
    """

    source: Source
    entry: str
    prefix: str
    names: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' shapes by the names that the rules use."""
        return {name: self.source.tensors[full].shape for name, full in self.names.items()}

    @property
    def dtypes(self) -> list[str]:
        """The tensors' types, each once, as in "float32"."""
        return sorted({str(self.source.tensors[full].dtype).removeprefix("torch.") for full in self.names.values()})

    def read(self, name: str) -> torch.Tensor:
        """The tensor that the rules call `name`."""
        return self.source.read(self.names[name])


@dataclass(frozen=True)
class Request:
    """What the user asks for, as `load_original` documents it."""

    family: str | None = None
    preset: str | None = None
    checkpoint_key: str | None = None
    probe_index: int = 0
    model_class: type[PreTrainedModel] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Plan:
    """All that is known of a conversion before a value is read.

    Attributes:
        found: the state dicts that the model is made of, by part.
        pairs: for each part, its rules written out.
        left_out: entries of the files that aren't read, with the reason.
        model: the model, its parameters without memory until `build` fills them.
        initialised: modules of the model that no file holds and that start as in a new one.
    """

    family: Family
    preset: str | None
    layout: Layout
    found: Mapping[str, FoundPart]
    pairs: Mapping[str, Sequence[Pair]]
    left_out: Mapping[str, str]
    model: PreTrainedModel
    initialised: Sequence[str]


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
    progress: Progress = no_progress,
    **config_overrides: Any,
) -> PreTrainedModel:
    """Build one of our models from the files of an original implementation.

    Sizes that the shapes of the tensors tell are read from them; the rest of the configuration comes from the
    original's `config.json`, if there is one beside the checkpoint, from the preset, which wins over it, and from
    `config_overrides`, which win over both.

    Args:
        path: the checkpoint (.pt, .pth, .npz, .safetensors, …), or an original directory that holds it as
            `model.safetensors`.
        family: `model_type` of the family, such as "vjepa2". By default the one whose rules fit the file exactly.
        preset: name of a published checkpoint in `vidformers.families`; it gives what shapes don't tell.
        probe: the file of a classifier head that goes on top.
        checkpoint_key: entry of the file to take where it holds several versions of the model, such as "encoder"
            instead of V-JEPA 2's "target_encoder".
        probe_index: which head to take where the probe's file holds several.
        dtype: type of the parameters.
        model_class: the class to build; by default the preset's, or the one that the files fit.
        progress: called as tensors are read.
        config_overrides: fields of the configuration (dictionaries for sub-configurations).

    Returns:
        The model in evaluation mode, on the CPU. It shares no memory with the file.

    Raises:
        ConversionError: for files that can't be read, tensors that are missing, unknown or of the wrong shape,
            unknown fields, and fields that contradict the shapes.
    """
    request = Request(family, preset, checkpoint_key, probe_index, model_class, config_overrides)
    with planned(path, probe, request) as plan:
        return build(plan, dtype, progress)


@contextmanager
def planned(path: str | os.PathLike, probe: str | os.PathLike | None, request: Request) -> Iterator[Plan]:
    """Open the files, find out what they are and check every name and shape."""
    with ExitStack() as stack:
        files = {"checkpoint": stack.enter_context(open_source(weights_of(path)))}
        if probe is not None:
            files["probe"] = stack.enter_context(open_source(probe))
        family, layout, found = _identify(files, request)
        maps = family_map(family.model_type)
        left_out = _left_out(family, layout, files, found)
        config = configuration(family, layout, found, request)
        pairs = {
            name: expand(maps.parts[name].rules, layout.config_of(name, config), layout.parts[name]) for name in found
        }
        # The plan alone refers to the model, so that who drops it there frees its memory.
        model_class = request.model_class or public_class(layout.architecture)
        model = empty_model(model_class, config)
        new = [name for name in layout.initialised if getattr(model, name) is not None]
        plan = Plan(family, request.preset, layout, found, pairs, left_out, model, new)
        del model
        _check_tensors(plan)
        yield plan


def weights_of(path: str | os.PathLike) -> Path:
    """The checkpoint's file: `path` itself, or `model.safetensors` in the directory that it is."""
    weights = Path(path) / "model.safetensors"
    return weights if weights.is_file() else Path(path)


def build(plan: Plan, dtype: torch.dtype, progress: Progress = no_progress) -> PreTrainedModel:
    """Read the tensors of a plan one by one into its model, in evaluation mode."""
    total, done = sum(len(pair.targets) for pairs in plan.pairs.values() for pair in pairs), 0
    for name, pairs in plan.pairs.items():
        for target, tensor in convert(pairs, plan.found[name].read):
            _assign(plan.model, target, tensor.to(dtype, copy=True, memory_format=torch.contiguous_format))
            del tensor  # a view would keep its stack in memory while the next one is read
            done += 1
            progress("reading tensors", done, total)
    _initialise(plan, dtype)
    plan.model.config.dtype = dtype
    return plan.model.eval()


def _initialise(plan: Plan, dtype: torch.dtype) -> None:
    """Give the modules that no file holds the values of a new model, and say so."""
    for name in plan.initialised:
        module = plan.model.get_submodule(name).to_empty(device="cpu")
        plan.model._init_weights(module)
        module.to(dtype)
    if plan.initialised:
        path = next(iter(plan.found.values())).source.path
        left_out = "; ".join(f"{what} ({why})" for what, why in drop_reasons(plan).items())
        logger.warning(
            f"{path}: {plan.layout.architecture} has modules that the file does not hold. They are new, and to be "
            f"trained: {', '.join(plan.initialised)}. Left out: {left_out}."
        )


def drop_reasons(plan: Plan) -> dict[str, str]:
    """Why tensors of the state dicts are left out of the model; the keys tell how many, and the first one's name."""
    found: dict[str, list[str]] = {}
    for part, pairs in plan.pairs.items():
        for pair in pairs:
            if pair.is_optional:
                present = [source for source in pair.sources if source in plan.found[part].names]
                found.setdefault(pair.op.reason, []).extend(present)
    return {
        f"`{names[0]}`" + (f" and {len(names) - 1} more" if len(names) > 1 else ""): reason
        for reason, names in found.items()
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


def public_class(name: str) -> type:
    """A class of `vidformers` by its name."""
    return getattr(import_module("vidformers"), name)


def class_named(name: str) -> type[PreTrainedModel]:
    """The model class that a user names; an error that lists them if there is no such."""
    known = [known for family in FAMILIES.values() for known in family.model_classes]
    if name not in known:
        raise ConversionError(f"unknown model class {name!r}{_similar(name, known)}")
    return public_class(name)


def _assign(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        tensor = nn.Parameter(tensor, requires_grad=module._parameters[leaf].requires_grad)
    setattr(module, leaf, tensor)


# -------------------------------------------------------------------------------------------------- what a file is


def _identify(files: Mapping[str, Source], request: Request) -> tuple[Family, Layout, dict[str, FoundPart]]:
    """The one family and layout whose rules name exactly the tensors of the files.

    Where the request leaves a single candidate, or a single one is closest, it is taken as it is: what doesn't fit is
    reported with shapes later.
    """
    candidates = _candidates(files, request)
    candidates = [pair for pair in candidates if _has_marked_parts(*pair, files)] or candidates
    if len(candidates) == 1:
        family, layout = candidates[0]
        return family, layout, find_parts(family, layout, files, _chosen_entries(family, request), request.probe_index)
    fits, misfits, reasons = [], [], []
    for family, layout in candidates:
        found, misfit = None, math.inf
        try:
            found = find_parts(family, layout, files, _chosen_entries(family, request), request.probe_index)
            problems = _unfit_names(family_map(family.model_type), layout, found)
            misfit = len(problems)
        except ConversionError as error:
            problems = [str(error)]
        if problems:
            reasons.append(f"  {layout.architecture}: {'; '.join(problems[:3])}")
            misfits.append((misfit, (family, layout, found)))
        else:
            fits.append((family, layout, found))
    path = files["checkpoint"].path
    if not fits:
        closest = _closest(misfits)
        if closest is None:
            raise ConversionError(f"{path}: no model's rules fit its tensors exactly.\n" + "\n".join(reasons))
        return closest
    # A tower alone fits where the whole model does.
    read = [sum(len(part.names) for part in found.values()) for _, _, found in fits]
    fits = [fit for fit, count in zip(fits, read, strict=True) if count == max(read)]
    if len(fits) > 1:
        names = " and ".join(layout.architecture for _, layout, _ in fits)
        raise ConversionError(f"{path}: fits {names} alike; say which family it is.")
    return fits[0]


def _has_marked_parts(family: Family, layout: Layout, files: Mapping[str, Source]) -> bool:
    """Whether the parts of a layout that have a marker are in the files with it, or may be absent and are."""
    for name in layout.parts:
        part = family_map(family.model_type).parts[name]
        if part.marker is None:
            continue
        names = [full for entry in part.entries for full in _names_in(files[part.file], entry)]
        if not any(full.endswith((f"/{part.marker}", f".{part.marker}")) for full in names):
            return not names and name in layout.optional
    return True


def _closest(misfits: Sequence[tuple[float, tuple[Family, Layout, Any]]]) -> tuple[Family, Layout, Any] | None:
    """Of the candidates, with their numbers of problems, the one that has all its parts and the fewest."""
    complete = sorted((entry for entry in misfits if entry[1][2] is not None), key=lambda entry: entry[0])
    if not complete or (len(complete) > 1 and complete[0][0] == complete[1][0]):
        return None
    return complete[0][1]


def _candidates(files: Mapping[str, Source], request: Request) -> list[tuple[Family, Layout]]:
    """The families and layouts that the request leaves open and that are made from exactly the given files."""
    named = _requested(request)
    fitting = [(family, layout) for family, layout in named if _files_of(family, layout) == set(files)]
    if fitting:
        return fitting
    family, layout = named[0]
    probe = request.preset and family.presets[request.preset].probe
    raise ConversionError(
        f"{layout.architecture} is made from {' and '.join(sorted(_files_of(family, layout)))}; the files given are "
        f"{' and '.join(sorted(files))}." + (f" The preset's probe is {probe}." if probe else "")
    )


def _requested(request: Request) -> list[tuple[Family, Layout]]:
    """The families and layouts that the request leaves open."""
    named_family = _family_of(request)
    families = [named_family] if named_family else list(FAMILIES.values())
    architecture = None
    if request.model_class:
        architecture = _architecture(request.model_class)
    elif request.preset:
        architecture = named_family.presets[request.preset].architecture
    pairs = [(family, layout) for family in families for layout in family_map(family.model_type).layouts]
    if architecture is None:
        return [pair for pair in pairs if not pair[1].on_request]
    named = [pair for pair in pairs if pair[1].architecture == architecture]
    if not named:
        raise ConversionError(f"{architecture} is no model that {families[0].title} files can be converted to.")
    return named


def _architecture(model_class: type[PreTrainedModel]) -> str:
    """The name of the class of ours that a class is or extends."""
    known = [name for family in FAMILIES.values() for name in family.model_classes]
    for base in model_class.__mro__:
        if base.__name__ in known:
            return base.__name__
    raise ConversionError(f"{model_class.__name__} is no model of vidformers; there are {', '.join(known)}.")


def _family_of(request: Request) -> Family | None:
    """The family that the request names, itself or through its preset."""
    if request.family is not None and request.family not in FAMILIES:
        raise ConversionError(f"unknown family {request.family!r}{_similar(request.family, FAMILIES)}")
    if request.preset is None:
        return FAMILIES.get(request.family)
    for family in FAMILIES.values():
        if request.preset in family.presets:
            if request.family not in (None, family.model_type):
                raise ConversionError(f"preset {request.preset} belongs to {family.model_type}, not {request.family}.")
            return family
    names = [name for family in FAMILIES.values() for name in family.presets]
    raise ConversionError(f"unknown preset {request.preset!r}{_similar(request.preset, names)}")


def _similar(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: what was probably meant, or all there is."""
    known = list(known)
    close = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else f"; there are {', '.join(known)}."


def _files_of(family: Family, layout: Layout) -> set[str]:
    parts = family_map(family.model_type).parts
    return {parts[name].file for name in layout.parts}


def _unfit_names(maps: FamilyMap, layout: Layout, found: Mapping[str, FoundPart]) -> list[str]:
    """Which names keep the state dicts from being those of the rules, at the counts that they themselves give."""
    values: dict[str, Any] = {}
    for path, value in read_fields(maps, layout, found).items():
        _set(values, path, value)
    problems = []
    for name, part in found.items():
        path = layout.configs.get(name)
        counts = SimpleNamespace(**(_get(values, path) if path else values))
        pairs = expand_names(maps.parts[name].rules, counts)
        expected = {source for pair in pairs for source in pair.sources}
        required = {source for pair in pairs if not pair.is_optional for source in pair.sources}
        problems += [f"{name} lacks {source}" for source in sorted(required - set(part.names))]
        problems += [f"{name} has {source} besides" for source in sorted(set(part.names) - expected)]
    return problems


# ------------------------------------------------------------------------------------------ where its parts stand


def find_parts(
    family: Family, layout: Layout, files: Mapping[str, Source], chosen: Mapping[str, str], probe_index: int = 0
) -> dict[str, FoundPart]:
    """The state dicts of a layout in the files that hold them; `chosen` gives the entries of parts, where known."""
    maps = family_map(family.model_type)
    found = {}
    for name in layout.parts:
        part = maps.parts[name]
        if part.file not in files:
            raise ConversionError(f"{layout.architecture} needs the file of its {part.file} as well.")
        source = files[part.file]
        entry = _entry(source, part, chosen.get(name), probe_index)
        own = None if entry is None else _own(_strip(source, entry, family.key_prefixes), part, maps)
        if own is not None:
            found[name] = own
        elif name not in layout.optional:
            entry = part.entries[0].replace("{index}", str(probe_index))
            lack = f"tensors under {part.under!r}" if part.under else f"entry {entry!r}"
            raise ConversionError(f"{source.path}: has no {lack}; it holds {_overview(source)}.")
    return found


def _own(whole: FoundPart, part: Part, maps: FamilyMap) -> FoundPart | None:
    """Of a state dict that several parts may share, the tensors of one part; `None` if there are none."""
    unders = {other.under for other in maps.parts.values() if other.file == part.file and other.under != part.under}
    others = tuple(under for under in unders if under.startswith(part.under))
    names = {name: full for name, full in whole.names.items() if name.startswith(part.under)}
    own = {name.removeprefix(part.under): full for name, full in names.items() if not name.startswith(others)}
    return replace(whole, prefix=whole.prefix + part.under, names=own) if own else None


def _chosen_entries(family: Family, request: Request) -> dict[str, str]:
    """The entries that the preset and the user's checkpoint key say to read; the key is for parts with versions."""
    chosen = dict(family.presets[request.preset].checkpoint_keys) if request.preset else {}
    if request.checkpoint_key is not None:
        versioned = (name for name, part in family_map(family.model_type).parts.items() if len(part.entries) > 1)
        chosen |= dict.fromkeys(versioned, request.checkpoint_key)
    return chosen


def _entry(source: Source, part: Part, wanted: str | None, index: int) -> str | None:
    """The path at which the file holds a part, `None` if it holds none; an error if that needs a choice."""
    entries = [entry.replace("{index}", str(index)) for entry in part.entries]
    default = entries[0] if wanted is None else wanted
    for entry in (default, *(part.spellings if wanted is None else ())):
        if _names_in(source, entry):
            return entry
    present = [entry for entry in entries if _names_in(source, entry)]
    if wanted is None and (not present or present == [""] or (part.any_entry and len(present) == 1)):
        return present[0] if present else None
    remedy = f" Choose one with checkpoint_key, such as {present[0]!r}." if present else ""
    raise ConversionError(f"{source.path}: has no entry {default!r}; it holds {_overview(source)}.{remedy}")


def _names_in(source: Source, entry: str) -> list[str]:
    """Full names of the tensors of an entry; "" is one only in a file that is a single flat state dict."""
    if entry == "":
        return [] if any("/" in name for name in source.tensors) else list(source.tensors)
    return [name for name in source.tensors if name.startswith(f"{entry}/")]


def _overview(source: Source) -> str:
    """The entries of a file, lists with their items, or those inside the only one."""
    entries = dict.fromkeys(_stem(name) for name in source.tensors)
    if len(entries) == 1:
        entries = dict.fromkeys("/".join(name.split("/")[:2]) for name in source.tensors)
    return ", ".join(repr(entry) for entry in entries) or "no tensors"


def _stem(name: str) -> str:
    """The entry that a tensor of a file belongs to: its path without its own name, down to an index of a list."""
    first, _, rest = name.partition("/")
    index = rest.partition("/")[0]
    return f"{first}/{index}" if index.isdigit() else first


def _strip(source: Source, entry: str, prefixes: Sequence[str]) -> FoundPart:
    """The tensors of an entry without the wrappers' prefixes, which all or none of them must carry."""
    start = len(entry) + 1 if entry else 0
    names, removed = {name[start:]: name for name in _names_in(source, entry)}, ""
    for prefix in prefixes:
        carrying = [name for name in names if name.startswith(prefix)]
        if not carrying:
            continue
        bare = [name for name in names if not name.startswith(prefix)]
        if bare:
            raise ConversionError(
                f"{source.path}: in {entry or 'the file'}, {carrying[0]} begins with {prefix!r} and {bare[0]} does "
                "not; all names of a state dict must carry the same prefix."
            )
        names = {name.removeprefix(prefix): full for name, full in names.items()}
        removed += prefix
    return FoundPart(source, entry, removed, names)


def _left_out(
    family: Family, layout: Layout, files: Mapping[str, Source], found: Mapping[str, FoundPart]
) -> dict[str, str]:
    """The entries that no part of the model is read from, with the reason; an error if an entry is unknown."""
    maps = family_map(family.model_type)
    reasons = _reasons(maps, layout, found)
    used = {full for part in found.values() for full in part.names.values()}
    left_out, unknown = {}, []
    for name, tensors in _parts_beside(family, found, used).items():
        left_out[maps.parts[name].under or name] = f"{layout.architecture} has no {name}"
        used |= tensors
    for source in files.values():
        for name in source.tensors:
            if name in used:
                continue
            entry = next((entry for entry in reasons if f"{name}/".startswith(f"{entry}/")), None)
            entry = entry or next((entry for entry in maps.left_out if name.startswith(f"{entry}.")), None)
            if entry is None:
                unknown.append(f"{source.path}: {name}: not expected (found shape {list(source.tensors[name].shape)})")
            else:
                stem = _stem(name)
                left_out[stem if f"{stem}/".startswith(f"{entry}/") else entry] = reasons[entry]
    if unknown:
        raise ConversionError("tensors that no rule reads or drops:\n" + "\n".join(unknown))
    return left_out


def _parts_beside(family: Family, found: Mapping[str, FoundPart], used: set[str]) -> dict[str, set[str]]:
    """Full names of tensors that stand in one state dict with a part that is read, by the part that they are of."""
    maps, beside = family_map(family.model_type), {}
    for other in found.values():
        whole = _strip(other.source, other.entry, family.key_prefixes)
        for name, part in maps.parts.items() if not used.issuperset(whole.names.values()) else ():
            if name in found or other.entry not in part.entries:
                continue
            own = _own(whole, part, maps)
            if own is None:
                continue
            try:
                counts = SimpleNamespace(**{field: reader.read(own.shapes) for field, reader in part.fields.items()})
            except LookupError:
                continue  # the state dict holds no such part
            expected = {source for pair in expand_names(part.rules, counts) for source in pair.sources}
            rest = {full for name, full in own.names.items() if name in expected} - used
            if rest:
                beside[name] = rest
    return beside


def _reasons(maps: FamilyMap, layout: Layout, found: Mapping[str, FoundPart]) -> dict[str, str]:
    """For each entry that may be left out, why.

    What stands beside a part in the entry that holds it is no entry: nobody knows what it is.
    """
    reasons = {}
    for name, part in maps.parts.items():
        for entry in part.entries:
            holder, is_list, _ = entry.partition("/{index}")
            if is_list or not any(part.entry.startswith(f"{entry}/") for part in found.values()):
                reasons[holder] = f"{layout.architecture} has no {name}"
    for name in found:
        for entry in (*maps.parts[name].entries, *maps.parts[name].spellings):
            reasons[entry.removesuffix("/{index}")] = f"another version of the {name}"
    return reasons | dict(maps.left_out)


def _check_tensors(plan: Plan) -> None:
    """Raise unless the rules, the model and the files agree on every tensor."""
    shapes = {name: tuple(tensor.shape) for name, tensor in plan.model.state_dict().items()}
    problems = check_targets(
        [pair for part in plan.pairs.values() for pair in part],
        {name: shape for name, shape in shapes.items() if name.partition(".")[0] not in plan.initialised},
    )
    for name, part in plan.found.items() if not problems else ():
        problems += [f"{part.entry}: {line}" for line in check_sources(plan.pairs[name], part.shapes, shapes)]
    if problems:
        paths = " and ".join(dict.fromkeys(str(part.source.path) for part in plan.found.values()))
        raise ConversionError(f"{paths}: {len(problems)} tensor(s) don't fit.\n  " + "\n  ".join(problems))


# ------------------------------------------------------------------------------------------------ its configuration


def configuration(
    family: Family, layout: Layout, found: Mapping[str, FoundPart], request: Request
) -> PretrainedConfig:
    """The configuration: what shapes fix, then the preset, then the user's overrides, none against the shapes."""
    maps = family_map(family.model_type)
    config_class = public_class(layout.architecture).config_class
    _check_field_names(config_class(), request.overrides)
    preset = family.presets[request.preset].config if request.preset else {}
    beside: dict[str, Any] = {}
    for name, fields in companion(maps, found).items():
        for path, value in fields.items() if name in found else ():
            _set(beside, layout.field(name, path), value)
    given = _merge(_merge(beside, preset), request.overrides)
    if "id2label" in given:
        given["num_labels"] = len(given["id2label"])
    read = read_fields(maps, layout, found)
    _check_contradictions(maps, layout, found, read, given)
    of_parts = [layout.field(name, path) for name in found for path in maps.parts[name].required]
    lacking = [path for path in (*maps.required, *of_parts) if _get(given, path) is None and read.get(path) is None]
    if lacking:
        raise ConversionError(
            f"{next(iter(found.values())).source.path}: its tensors don't tell {', '.join(lacking)}. Give them, or "
            f"the preset of a published checkpoint: {', '.join(family.presets)}."
        )
    values: dict[str, Any] = {}
    for path, value in read.items():
        _set(values, path, value)
    values = _merge(values, given)
    if "id2label" in values:
        del values["num_labels"]
        values["label2id"] = {label: int(index) for index, label in values["id2label"].items()}
    try:
        return config_class(**values, architectures=[layout.architecture])
    except (StrictDataclassError, ValueError) as error:
        raise ConversionError(f"{config_class.__name__} refuses the configuration: {error}") from error


def companion(maps: FamilyMap, found: Mapping[str, FoundPart]) -> Mapping[str, Mapping[str, Any]]:
    """What the original's `config.json` beside the checkpoint tells, by part; nothing where there is none."""
    file = next(iter(found.values())).source.path.with_name("config.json")
    if not file.is_file():
        return {}
    try:
        return maps.companion(json.loads(file.read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{file}: not what the original reads ({type(error).__name__}: {error}).") from error


def read_fields(maps: FamilyMap, layout: Layout, found: Mapping[str, FoundPart]) -> dict[str, Any]:
    """The configuration fields, as dotted paths, that the files fix."""
    values = {layout.field(name, part.presence): name in found for name, part in _flagged(maps)}
    for name in layout.parts:
        part = maps.parts[name]
        if part.presence in part.fields and name not in found:
            values[layout.field(name, part.presence)] = 0
    for name, part in found.items():
        shapes = part.shapes
        for path, reader in maps.parts[name].fields.items():
            try:
                values[layout.field(name, path)] = reader.read(shapes)
            except (KeyError, IndexError, ValueError):
                state = f"has shape {list(shapes[reader.tensor])}" if reader.tensor in shapes else "is missing"
                raise ConversionError(
                    f"{part.source.path}: {part.entry}: {reader.tensor} {state}, and {path} is read from it."
                ) from None
    return values


def _flagged(maps: FamilyMap) -> list[tuple[str, Part]]:
    """The parts whose presence is a flag, which is false for classes without them too."""
    return [(name, part) for name, part in maps.parts.items() if part.presence and part.presence not in part.fields]


def _check_contradictions(
    maps: FamilyMap,
    layout: Layout,
    found: Mapping[str, FoundPart],
    read: Mapping[str, Any],
    given: Mapping[str, Any],
) -> None:
    problems = []
    for name, part in found.items():
        for field_name, reader in maps.parts[name].fields.items():
            path = layout.field(name, field_name)
            value = _get(given, path)
            if value is not None and not reader.agrees(value, part.shapes):
                problems.append(f"{path}={value!r} was given, but {reader.tensor} of {part.entry} says {read[path]!r}")
    counted = [(name, maps.parts[name]) for name in layout.parts if name not in found and maps.parts[name].presence]
    for name, part in dict([*_flagged(maps), *counted]).items():
        path = layout.field(name, part.presence)
        value = _get(given, path)
        if value is not None and value != read[path]:
            problems.append(f"{path}={value!r} was given, but the conversion has {name}: {name in found}")
    if problems:
        raise ConversionError(f"{next(iter(found.values())).source.path}: " + "; ".join(problems) + ".")


def _check_field_names(defaults: PretrainedConfig, overrides: Mapping[str, Any]) -> None:
    known = [name for name in vars(defaults) if not name.startswith("_")] + ["num_labels"]
    for name, value in overrides.items():
        if name not in known:
            raise ConversionError(f"{type(defaults).__name__} has no field {name!r}{_similar(name, known)}")
        if isinstance(getattr(defaults, name), PretrainedConfig):
            _check_field_names(getattr(defaults, name), value)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, dictionary by dictionary."""
    merged = dict(base)
    for name, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if nested else value
    return merged


def _get(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, `None` if there is none."""
    first, _, rest = path.partition(".")
    if not rest:
        return values.get(first)
    return _get(values[first], rest) if first in values else None


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    first, _, rest = path.partition(".")
    if rest:
        _set(values.setdefault(first, {}), rest, value)
    else:
        values[first] = value
