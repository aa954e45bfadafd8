"""Google docstrings taken apart, for the checks and for the pages.

A section is a line such as `Args:` with what is indented below it. An entry of it is `name: text`, possibly with a
description of its type, `name (`int`, *optional*, defaults to 16): text`, as configurations have it. Several names
may share an entry.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import cleandoc
from textwrap import dedent, indent


TITLES = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Raises": "Raises",
    "Returns": "Returns",
    "Yields": "Yields",
}
WITH_NAMES = {"Args", "Attributes", "Raises"}
SECTION = re.compile(rf"^({'|'.join(TITLES)}):\s*$")
NAMES = r"\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*"
ENTRY = re.compile(rf"^(?P<names>{NAMES})(?: \((?P<type>.*?)\))?:(?:\s+(?P<text>.*))?$")
REFERENCE = re.compile(r"\[`(~?[\w.#]+)`\](?![(\[])")


@dataclass
class Entry:
    """One entry of a section: the names that it explains, what it says of their type, and the text."""

    names: tuple[str, ...]
    type: str
    text: str


@dataclass
class Section:
    """A section with its entries, or with a `text` where it has no names."""

    name: str
    entries: list[Entry] = field(default_factory=list)
    text: str = ""


@dataclass
class Docstring:
    """A docstring in reading order: paragraphs as text, and sections."""

    parts: list[str | Section]

    def section(self, *names: str) -> Section | None:
        """The first section that has one of these names."""
        return next((part for part in self.parts if isinstance(part, Section) and part.name in names), None)

    def entries(self, *sections: str) -> dict[str, Entry]:
        """The entries of the first section of that name, by each of their names without asterisks."""
        found = self.section(*sections)
        entries = found.entries if found else ()
        return {name.lstrip("*"): entry for entry in entries for name in entry.names}


def parse(docstring: str | None) -> Docstring:
    """Take a docstring apart; an entry that isn't one raises ValueError with its line."""
    parts: list[str | Section] = []
    prose: list[str] = []
    lines = cleandoc(docstring or "").splitlines()
    while lines:
        line = lines.pop(0)
        title = SECTION.match(line)
        if title is None:
            prose.append(line)
            continue
        body = []
        while lines and (not lines[0].strip() or lines[0].startswith(" ")):
            body.append(lines.pop(0))
        parts += [_joined(prose), _section(title[1], dedent("\n".join(body)).strip("\n"))]
        prose = []
    return Docstring([part for part in [*parts, _joined(prose)] if part])


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).strip("\n")


def _section(name: str, body: str) -> Section:
    if name not in WITH_NAMES:
        return Section(name, text=body)
    section = Section(name)
    for line in body.splitlines():
        if line.startswith(" ") or not line:
            if not section.entries:
                raise ValueError(f"`{name}` begins with {line.strip()!r}, which no name stands before")
            section.entries[-1].text += f"\n{line}"
            continue
        found = ENTRY.match(line)
        if found is None:
            raise ValueError(f"{line!r} in `{name}` is not of the form `name: text`; longer text is indented more")
        names = tuple(found["names"].split(", "))
        section.entries.append(Entry(names, found["type"] or "", found["text"] or ""))
    for entry in section.entries:
        first, _, rest = entry.text.partition("\n")
        entry.text = "\n".join(filter(None, [first, dedent(rest).rstrip()]))
    return section


def to_markdown(docstring: str, link: Callable[[str], str]) -> str:
    """The docstring as Markdown: sections become lists under a bold title.

    Args:
        docstring: as it stands in the code.
        link: Markdown for what a reference [`name`] names.
    """
    written = []
    for part in parse(docstring).parts:
        if isinstance(part, str):
            written.append(part)
            continue
        lines = [_item(name, entry) for entry in part.entries for name in entry.names]
        written.append(f"**{TITLES[part.name]}**\n\n" + ("\n".join(lines) or part.text))
    return replace_references("\n\n".join(written), link)


def _item(name: str, entry: Entry) -> str:
    """An entry as an item of a list; further lines of it are indented as Python's Markdown wants it."""
    kind = f" ({entry.type})" if entry.type else ""
    first, _, rest = entry.text.partition("\n")
    return f"- `{name}`{kind}: {first}" + (f"\n{indent(rest, '    ')}" if rest else "")


def replace_references(text: str, link: Callable[[str], str]) -> str:
    """Put `link(name)` in the place of every [`name`] that is no link yet."""
    return REFERENCE.sub(lambda found: link(found[1]), text)
