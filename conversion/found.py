"""The state dicts of a form as they stand in original files, and what else the files hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from .ops import ConversionError
from .rules import TRAINING_STATE, WRAPPERS, Entry, Form, Shapes, section
from .sources import Source, listed


@dataclass(frozen=True)
class FoundPart:
    """A state dict as it stands in a file.

    Attributes:
        source: the file.
        place: its path in the file.
        prefix: what every tensor name begins with before the names that rules use.
        names: for each name that rules use, the tensor's full name in the file.
        rows: for the full names of tensors that are read in part, the rows to read, in order.
    """

    source: Source
    place: str
    prefix: str
    names: Mapping[str, str]
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' shapes by the names that rules use."""
        whole = {name: self.source.tensors[full].shape for name, full in self.names.items()}
        kept = {name: self.rows[full] for name, full in self.names.items() if full in self.rows}
        return whole | {name: (len(rows), *whole[name][1:]) for name, rows in kept.items()}

    @property
    def dtypes(self) -> list[str]:
        """The tensors' types, each once, as in "float32"."""
        return sorted({str(self.source.tensors[full].dtype).removeprefix("torch.") for full in self.names.values()})

    def read(self, name: str) -> torch.Tensor:
        """The tensor that rules call `name`."""
        full = self.names[name]
        tensor = self.source.read(full)
        return tensor[list(self.rows[full])] if full in self.rows else tensor

    def under(self, prefix: str) -> "FoundPart":
        """The tensors whose names begin with `prefix`, by their names without it."""
        own = {name.removeprefix(prefix): full for name, full in self.names.items() if name.startswith(prefix)}
        return replace(self, names=own)


class Found(dict[str, FoundPart]):
    """The state dicts that a form reads, by its entries.

    Attributes:
        form: of the files.
        left_out: sections of the files that are not read, with the reason.
        strays: full names of tensors that nothing accounts for, by the file that holds them.
    """

    def __init__(
        self, form: Form, parts: Mapping[str, FoundPart], left_out: Mapping[str, str], strays: Mapping[str, Source]
    ):
        super().__init__(parts)
        self.form, self.left_out, self.strays = form, left_out, strays

    @property
    def path(self) -> Path:
        """The checkpoint's file."""
        return next(iter(self.values())).source.path

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return list(dict.fromkeys(part.source.path for part in self.values()))

    @property
    def shapes(self) -> Shapes:
        """The tensors' shapes by their names in the form's namespace."""
        return Shapes((joined(key, name), shape) for key, part in self.items() for name, shape in part.shapes.items())

    def read(self, name: str) -> torch.Tensor:
        """A tensor by its name in the form's namespace."""
        key, bare = self.form.split(name)
        part = self[key]
        if bare not in part.names:
            raise ConversionError(f"{part.source.path}: {self.written(name)} is missing.")
        return part.read(bare)

    def written(self, name: str) -> str:
        """A name of the namespace as messages write it, with the place instead of the entry."""
        key, bare = self.form.split(name)
        return f"{self[key].place}: {bare}" if self[key].place else bare


def find(form: Form, files: Mapping[str, Source], chosen: Mapping[str, str], index: int = 0) -> Found:
    """The state dicts of a form, and what else the files hold; `chosen` has places of entries, where known."""
    parts: dict[str, FoundPart] = {}
    left_out: dict[str, str] = {}
    strays: dict[str, Source] = {}
    accounted: set[tuple[str, str]] = set()
    for key, entry in form.entries.items():
        source = files[entry.file]
        whole = _unwrap(source, _place(source, entry, chosen.get(key), index))
        accounted |= {(entry.file, full) for full in whole.names.values()}
        unread = {name: section(joined(key, name), form.left_out) for name in whole.names}
        left_out |= {name: form.left_out[name] for name in unread.values() if name is not None}
        parts[key] = replace(whole, names={name: whole.names[name] for name in unread if unread[name] is None})
    for file, source in files.items():
        reasons = _reasons(form, file)
        for name in source.tensors:
            if (file, name) not in accounted:
                part, stem = section(name, reasons), _stem(name)
                if part is None:
                    strays[name] = source
                else:  # of a list that is read in part, its items by themselves
                    left_out[stem if stem.startswith(f"{part}/") else part] = reasons[part]
    return Found(form, parts, left_out, strays)


def _reasons(form: Form, file: str) -> dict[str, str]:
    """For each section of a file that may stand outside the state dicts that are read, why it isn't."""
    versions = {
        place.removesuffix("/{index}"): f"another version of the {key or 'model'}"
        for key, entry in form.entries.items()
        for place in entry.all_places
        if place and entry.file == file
    }
    return {**TRAINING_STATE, **versions, **form.left_out}


def _place(source: Source, entry: Entry, wanted: str | None, index: int) -> str:
    """The path at which the file holds an entry; an error if it holds none, or if that needs a choice."""
    places, versions = (
        [path.replace("{index}", str(index)) for path in paths] for paths in (entry.places, entry.versions)
    )
    asked = places if wanted is None else [wanted]
    for place in asked:
        if names_at(source, place):
            return place
    there = [place for place in (*places, *versions) if names_at(source, place)]
    remedy = f" Choose one with checkpoint_key, such as {there[0]!r}." if there else ""
    raise ConversionError(f"{source.path}: has no entry {asked[0]!r}; it holds {overview(source)}.{remedy}")


def names_at(source: Source, place: str) -> dict[str, str]:
    """Names of the tensors at a place, with their full ones; "" is one only in a file that is a flat state dict."""
    if place:
        names = (name for name in source.tensors if name.startswith(f"{place}/"))
        return {name.removeprefix(f"{place}/"): name for name in names}
    names = [name for name in source.tensors if name.partition("/")[0] not in TRAINING_STATE]
    return {} if any("/" in name for name in names) else {name: name for name in names}


def overview(source: Source) -> str:
    """The entries of a file, lists with their items, or those inside the only one."""
    entries = list(dict.fromkeys(_stem(name) for name in source.tensors))
    if len(entries) == 1:
        entries = list(dict.fromkeys("/".join(name.split("/")[:2]) for name in source.tensors))
    return listed([repr(entry) for entry in entries]) or "no tensors"


def _stem(name: str) -> str:
    """The entry that a tensor of a file belongs to: its path without its own name, down to an index of a list."""
    first, _, rest = name.partition("/")
    index = rest.partition("/")[0]
    return f"{first}/{index}" if index.isdigit() else first


def _unwrap(source: Source, place: str) -> FoundPart:
    """The tensors at a place without the wrappers' prefixes, which all or none of them must carry."""
    names = names_at(source, place)
    prefixes = {WRAPPERS.match(name).group(): name for name in names}
    if len(prefixes) > 1:
        one, other = sorted(prefixes, key=len, reverse=True)[:2]
        raise ConversionError(
            f"{source.path}: in {place or 'the file'}, {prefixes[one]} begins with {one!r} and {prefixes[other]} does "
            "not; all names of a state dict must carry the same prefix."
        )
    (prefix,) = prefixes
    return FoundPart(source, place, prefix, {name.removeprefix(prefix): full for name, full in names.items()})


def joined(key: str, name: str) -> str:
    """A name in the namespace."""
    return f"{key}/{name}" if key else name
