"""Which form original files have, and whose: what the user asks for, and what fingerprints say."""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from re import sub
from typing import Any

from transformers import PreTrainedModel

from vidformers.families import FAMILIES
from vidformers.models.records import Family

from .found import Found, find, names_at, overview
from .labels import Labels
from .ops import ConversionError
from .rules import WRAPPERS, Entry, Form, forms_of
from .sources import MOST_LISTED, Source


MODEL_CLASSES = tuple(name for family in FAMILIES.values() for name in family.model_classes)
REMOTE_CODE = tuple(beginning for family in FAMILIES.values() for beginning in family.remote_code)
NOTHING_TO_CONVERT = "is in transformers' format already; there is nothing to convert."

Names = Callable[[Entry], frozenset[str]]
"""Gives the names of an entry's tensors, wherever it may stand."""


class Request:
    """What the user asks for, as `load_original` documents it; `overrides` are fields of the configuration.

    `family` is the record of the family that is named, itself or through its preset, and `published` the preset's.

    Raises:
        ConversionError: a name that there is not, or a preset of another family.
    """

    def __init__(
        self,
        family: str | None = None,
        preset: str | None = None,
        checkpoint_key: str | None = None,
        probe_index: int = 0,
        model_class: type[PreTrainedModel] | None = None,
        labels: Labels | None = None,
        keep_labels: Labels | None = None,
        **overrides: Any,
    ):
        families = {name: each for each in FAMILIES.values() for name in each.presets}
        for kind, name, known in (("family", family, FAMILIES), ("preset", preset, families)):
            if name is not None and name not in known:
                raise ConversionError(f"unknown {kind} {name!r}{similar(name, known)}")
        self.family: Family | None = families.get(preset) or FAMILIES.get(family)
        if family not in (None, self.family and self.family.model_type):
            raise ConversionError(f"preset {preset} belongs to {self.family.model_type}, not {family}.")
        self.preset, self.published = preset, self.family and self.family.presets.get(preset)
        self.checkpoint_key, self.probe_index, self.model_class = checkpoint_key, probe_index, model_class
        self.labels, self.keep_labels, self.overrides = labels, keep_labels, overrides


# -------------------------------------------------------------------------------------------------- what a file is


def identify(files: Mapping[str, Source], request: Request, places: Mapping[str, str] | None = None) -> Found:
    """The one form whose fingerprint is in the files: of each family the first, and of one family alone.

    The files are the opened "checkpoint" and maybe "probe". `places` says where a form's entries stand, if that is
    known; by default the request does.
    """
    fits: dict[str, Form] = {}
    candidates, names = _candidates(files, request), _names_in(files)
    for form in candidates:
        if not _lacking(form, names) and not any(_has(form, name, names) for name in form.absent):
            fits.setdefault(form.family, form)
    if not fits:
        raise ConversionError(_unknown_file(files, candidates, names))
    if len(fits) > 1:
        titles = " and ".join(f"{form.title} (family {family})" for family, form in fits.items())
        raise ConversionError(f"{files['checkpoint'].path}: may be {titles}; say which family it is.")
    (form,) = fits.values()
    chosen = _chosen_places(form, request) if places is None else places
    return find(form, files, chosen, request.probe_index)


def damaged_forms(form: Form, files: Mapping[str, Source]) -> list[str]:
    """Forms before the one that was found of which the files have a part of the fingerprint: a line for each."""
    forms = forms_of(form.family)
    others = [each for each in forms[: forms.index(form)] if set(each.files) == set(files) and not each.on_request]
    nearly = _nearly(others, _names_in(files))
    return [f"If it is meant as {other.title}, it lacks {', '.join(lacking)}." for other, lacking in nearly.items()]


def _names_in(files: Mapping[str, Source]) -> Names:
    """What gives the names of an entry's tensors, wherever it may stand; each entry is looked up once."""

    @cache
    def names(entry: Entry) -> frozenset[str]:
        source, places = files[entry.file], [path.replace("{index}", "0") for path in entry.all_places]
        return frozenset(WRAPPERS.sub("", name) for place in places for name in names_at(source, place))

    return names


def _has(form: Form, name: str, names: Names) -> bool:
    key, bare = form.split(name)
    return bare in names(form.entries[key])


def _lacking(form: Form, names: Names) -> list[str]:
    """The names of a form's fingerprint that the files lack."""
    return [name for name in form.fingerprint if not _has(form, name, names)]


def _nearly(forms: Iterable[Form], names: Names) -> dict[Form, list[str]]:
    """The forms of whose fingerprint the files have a part, with what they lack of it."""
    lacking = {form: _lacking(form, names) for form in forms}
    return {form: lacks for form, lacks in lacking.items() if 0 < len(lacks) < len(form.fingerprint)}


def _candidates(files: Mapping[str, Source], request: Request) -> list[Form]:
    """The forms that the request leaves open and that are made from exactly the given files."""
    family, preset, architecture = request.family, request.published, None
    if request.model_class:
        architecture = _architecture(request.model_class)
    elif preset:
        architecture = preset.architecture
    forms = [form for each in ([family.model_type] if family else FAMILIES) for form in forms_of(each)]
    named = [form for form in forms if form.architecture == architecture]
    if architecture and not named:
        raise ConversionError(f"{architecture} is no model that {family.title} files can be converted to.")
    named = named or [form for form in forms if not form.on_request]
    if fitting := [form for form in named if set(form.files) == set(files)]:
        return fitting
    raise ConversionError(
        f"{named[0].architecture} is made from {' and '.join(named[0].files)}; the files given are "
        f"{' and '.join(sorted(files))}."
        + (f" The preset's probe is {preset.probe}." if preset and preset.probe else "")
    )


def _architecture(model_class: type[PreTrainedModel]) -> str:
    """The name of the class of ours that a class is or extends."""
    for base in model_class.__mro__:
        if base.__name__ in MODEL_CLASSES:
            return base.__name__
    raise ConversionError(f"{model_class.__name__} is no model of vidformers; there are {', '.join(MODEL_CLASSES)}.")


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = [name for family in FAMILIES.values() for name in family.model_types]
    raise ConversionError(f"unknown model type {model_type!r}; there are {', '.join(known)}.")


def similar(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: what was probably meant, or all there is."""
    known = list(known)
    close = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else f"; there are {', '.join(known)}."


def shortened(lines: Sequence[str], kind: str) -> list[str]:
    """The first lines of a kind, and how many more there are."""
    more = len(lines) - MOST_LISTED
    return [*lines[:MOST_LISTED], *([f"… and {more} more {kind}"] if more > 0 else [])]


def public_class(name: str) -> type:
    """A class of `vidformers` by its name."""
    return getattr(import_module("vidformers"), name)


def _unknown_file(files: Mapping[str, Source], forms: Sequence[Form], names: Names) -> str:
    """The message about files that have no form's fingerprint."""
    path = files["checkpoint"].path
    check_is_original(path)
    if _has_our_names(files["checkpoint"]):
        missing = "from_pretrained loads it from a directory with its config.json, which is missing here."
        return f"{path}: {NOTHING_TO_CONVERT}\n{missing}"
    held = " and ".join(f"{source.path.name} holds {overview(source)}" for source in files.values())
    nearly = _nearly(forms, names)
    lines = [f"{path}: not recognized; {held}. Looked for:"]
    for form in nearly or forms:
        lacks = f"; the file lacks {', '.join(nearly[form])}" if nearly else ""
        lines.append(f"  {form.title}: known by {', '.join(form.fingerprint)}{lacks}")
    if len(forms) > 1:
        lines.append("If it is one of them, name it with family or preset, or download it again.")
    return "\n".join(lines)


def _has_our_names(source: Source) -> bool:
    """Whether all tensors are called as those of one of our models, whatever its numbers of layers."""
    names = {sub(r"\d+", "0", name) for name in source.tensors}
    return bool(names) and any(names <= ours for ours in _our_names())


@cache
def _our_names() -> list[set[str]]:
    """Of each form, the names of our tensors, with 0 for every number."""
    forms = (form for family in FAMILIES for form in forms_of(family))
    rules = (form.rules(public_class(form.architecture).config_class()) for form in forms)
    return [{sub(r"\d+", "0", name) for entry in each for name in entry.ours} for each in rules]


def check_is_original(path: Path) -> None:
    """Raise if a file stands beside a configuration of transformers, or a directory holds one."""
    folder = path if path.is_dir() else path.parent
    try:
        settings = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(settings, dict) or str(settings.get("model_type")).startswith(REMOTE_CODE):
        return
    if {"architectures", "transformers_version"} & set(settings):
        raise ConversionError(
            f"{path}: {NOTHING_TO_CONVERT}\n"
            f"Load it with from_pretrained({str(folder)!r}), or check it with `vidformers verify {folder}`."
        )


def _chosen_places(form: Form, request: Request) -> dict[str, str]:
    """The places that the preset and the user's checkpoint key say to read; the key is for entries with several."""
    chosen = dict(request.published.checkpoint_keys) if request.published else {}
    if request.checkpoint_key is not None:
        several = (key for key, entry in form.entries.items() if len(entry.all_places) > 1)
        chosen |= dict.fromkeys(several, request.checkpoint_key)
    return chosen
