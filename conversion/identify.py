"""Which form original files have, and whose: what the user asks for, and what fingerprints say."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from vidformers.families import FAMILIES
from vidformers.models.records import Family

from .found import MOST_LISTED, Found, find, names_in, overview, places_of, unwrapped
from .ops import ConversionError
from .rules import Entry, Form, forms_of
from .sources import Source


@dataclass(frozen=True)
class Request:
    """What the user asks for, as `load_original` documents it."""

    family: str | None = None
    preset: str | None = None
    checkpoint_key: str | None = None
    probe_index: int = 0
    model_class: type[PreTrainedModel] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------- what a file is


def identify(
    files: Mapping[str, Source], request: Request, places: Mapping[str, str] | None = None
) -> tuple[Family, Form, Found]:
    """The one form whose fingerprint is in the files: of each family the first, and of one family alone.

    Args:
        files: the opened "checkpoint" and, where there is one, "probe".
        request: what the user asks for.
        places: where a form's entries stand, if that is known; by default as the request says.
    """
    fits: dict[str, tuple[Family, Form]] = {}
    candidates, names = _candidates(files, request), _Names(files, request.probe_index)
    for family, form in candidates:
        if family.model_type not in fits and names.fit(form):
            fits[family.model_type] = family, form
    if not fits:
        raise ConversionError(_unknown_file(files, candidates, names))
    if len(fits) > 1:
        titles = " and ".join(f"{form.title} (family {family.model_type})" for family, form in fits.values())
        raise ConversionError(f"{files['checkpoint'].path}: may be {titles}; say which family it is.")
    ((family, form),) = fits.values()
    chosen = _chosen_places(family, form, request) if places is None else places
    return family, form, find(form, files, chosen, request.probe_index)


def damaged_forms(family: Family, form: Form, files: Mapping[str, Source]) -> list[str]:
    """Forms before the one that was found of which the files have a part of the fingerprint: a line for each."""
    lines, names = [], _Names(files)
    for other in forms_of(family.model_type):
        if other is form:
            break
        lacking = names.lacking(other) if set(other.files) == set(files) else []
        if not other.on_request and lacking and len(lacking) < len(other.fingerprint):
            lines.append(f"If it is meant as {other.title}, it lacks {', '.join(lacking)}.")
    return lines


def _candidates(files: Mapping[str, Source], request: Request) -> list[tuple[Family, Form]]:
    """The families and forms that the request leaves open and that are made from exactly the given files."""
    named = _requested(request)
    fitting = [(family, form) for family, form in named if set(form.files) == set(files)]
    if fitting:
        return fitting
    family, form = named[0]
    probe = request.preset and family.presets[request.preset].probe
    raise ConversionError(
        f"{form.architecture} is made from {' and '.join(form.files)}; the files given are "
        f"{' and '.join(sorted(files))}." + (f" The preset's probe is {probe}." if probe else "")
    )


def _requested(request: Request) -> list[tuple[Family, Form]]:
    """The families and forms that the request leaves open."""
    named_family = _family_of(request)
    families = [named_family] if named_family else list(FAMILIES.values())
    architecture = None
    if request.model_class:
        architecture = _architecture(request.model_class)
    elif request.preset:
        architecture = named_family.presets[request.preset].architecture
    pairs = [(family, form) for family in families for form in forms_of(family.model_type)]
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


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = [name for family in FAMILIES.values() for name in family.model_types]
    raise ConversionError(f"unknown model type {model_type!r}; there are {', '.join(known)}.")


def _family_of(request: Request) -> Family | None:
    """The family that the request names, itself or through its preset."""
    if request.family is not None and request.family not in FAMILIES:
        raise ConversionError(f"unknown family {request.family!r}{similar(request.family, FAMILIES)}")
    if request.preset is None:
        return FAMILIES.get(request.family)
    for family in FAMILIES.values():
        if request.preset in family.presets:
            if request.family not in (None, family.model_type):
                raise ConversionError(f"preset {request.preset} belongs to {family.model_type}, not {request.family}.")
            return family
    names = [name for family in FAMILIES.values() for name in family.presets]
    raise ConversionError(f"unknown preset {request.preset!r}{similar(request.preset, names)}")


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


class _Names:
    """Which names of their namespaces files have, wherever an entry may stand; each entry is looked up once."""

    def __init__(self, files: Mapping[str, Source], index: int = 0):
        self.files, self.index = files, index
        self.known: dict[Entry, set[str]] = {}

    def fit(self, form: Form) -> bool:
        """Whether a form's fingerprint is there, and nothing that the form doesn't have."""
        return not self.lacking(form) and not any(self._has(form, name) for name in form.absent)

    def lacking(self, form: Form) -> list[str]:
        """The names of a form's fingerprint that the files lack."""
        return [name for name in form.fingerprint if not self._has(form, name)]

    def _has(self, form: Form, name: str) -> bool:
        key, _, bare = name.partition("/")
        entry, bare = (form.entries[key], bare) if key in form.entries else (form.entries[""], name)
        if entry not in self.known:
            self.known[entry] = set(self._bare_names(entry))
        return bare in self.known[entry]

    def _bare_names(self, entry: Entry) -> Iterator[str]:
        source = self.files[entry.file]
        paths = [path.replace("{index}", str(number)) for path in places_of(entry) for number in (self.index, 0)]
        for place in dict.fromkeys(paths):
            yield from (unwrapped(name[len(place) + 1 if place else 0 :]) for name in names_in(source, place))


def _unknown_file(files: Mapping[str, Source], candidates: Sequence[tuple[Family, Form]], names: _Names) -> str:
    """The message about files that have no form's fingerprint."""
    path = files["checkpoint"].path
    if is_transformers(path):
        return transformers_message(path)
    held = " and ".join(f"{source.path.name} holds {overview(source)}" for source in files.values())
    lines = [f"{path}: not recognized; {held}. Looked for:"]
    nearly, others = [], []
    for _, form in candidates:
        lacking = names.lacking(form)
        line = f"  {form.title}: known by {', '.join(form.fingerprint)}"
        if len(lacking) < len(form.fingerprint):
            nearly.append(f"{line}; the file lacks {', '.join(lacking)}")
        else:
            others.append(line)
    lines += nearly or others
    if len(candidates) > 1:
        lines.append("If it is one of them, name it with family or preset, or download it again.")
    return "\n".join(lines)


def is_transformers(path: Path) -> bool:
    """Whether a file stands beside a configuration of transformers, or a directory holds one."""
    file = path / "config.json" if path.is_dir() else path.with_name("config.json")
    try:
        settings = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and bool({"architectures", "transformers_version"} & set(settings))


def transformers_message(path: Path) -> str:
    """What to do with a directory that is in transformers' format."""
    folder = path if path.is_dir() else path.parent
    return (
        f"{path}: is in transformers' format already; there is nothing to convert.\n"
        f"Load it with from_pretrained({str(folder)!r}), or check it with `vidformers verify {folder}`."
    )


def _chosen_places(family: Family, form: Form, request: Request) -> dict[str, str]:
    """The places that the preset and the user's checkpoint key say to read; the key is for entries with several."""
    chosen = dict(family.presets[request.preset].checkpoint_keys) if request.preset else {}
    if request.checkpoint_key is not None:
        several = (key for key, entry in form.entries.items() if len(places_of(entry)) > 1)
        chosen |= dict.fromkeys(several, request.checkpoint_key)
    return chosen
