"""Pages in Hugging Face's Markdown, checked and turned into those of the site."""

import posixpath
import re
from collections.abc import Iterator
from textwrap import indent

from .docstrings import replace_references
from .names import AUTODOC, FENCED, Documentation, Page


HEADING = re.compile(r"^(?P<marks>#+) (?P<title>.*?)(?: *\[\[(?P<anchor>[\w.-]+)\]\])? *$", re.MULTILINE)
OWN_HEADING = re.compile(r"^(?P<marks>#+) (?P<title>\w+)\s*\Z", re.MULTILINE)
LINK = re.compile(r"(?<!\!)\[(?P<text>[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]\((?P<target>[^()\s]+)\)")
TIP = re.compile(r"^<Tip(?P<warning> warning=\{true\})?>\n(?P<text>.*?)^</Tip>$", re.MULTILINE | re.DOTALL)
ALERT = re.compile(r"^> \[!(?P<kind>[A-Z]+)\]\n(?P<text>(?:^>.*\n?)*)", re.MULTILINE)
QUOTED = re.compile(r"^> ?", re.MULTILINE)
COMPONENT = re.compile(r"^ *</?(?P<name>[A-Z]\w*|hfoptions?)\b", re.MULTILINE)
LIST_AFTER_TEXT = re.compile(r"^(?P<text>(?! *(?:[-*]|\d+\.) )(?![#>|]| *$).*\n)(?P<item>(?:[-*]|1\.) )", re.MULTILINE)


def broken_links(page: Page, documentation: Documentation) -> Iterator[str]:
    """What is wrong with the links and the components of a page, one line each."""
    for found in LINK.finditer(page.prose):
        target, _, anchor = found["target"].partition("#")
        if is_external(found["target"]):
            continue
        name = linked_page(page, target)
        if name not in documentation.pages:
            yield f"links {found['target']}, but there is no docs/{name}.md"
        elif anchor and anchor not in anchors_of(documentation.pages[name], documentation):
            yield f"links {found['target']}, but docs/{name}.md has no such heading"
    tips = TIP.sub("", page.prose)
    for found in COMPONENT.finditer(tips):
        yield f"uses <{found['name']}>, which utils/docs/pages.py doesn't know (it knows <Tip>)"


def is_external(target: str) -> bool:
    """Whether a link leads out of the documentation."""
    return "://" in target or target.startswith("mailto:")


def linked_page(page: Page, target: str) -> str:
    """The name of the page that a link on `page` leads to; links are relative to the page, without `.md`."""
    if not target:
        return page.name
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(page.name), target))
    return joined.removesuffix(".md")


def anchors_of(page: Page, documentation: Documentation) -> set[str]:
    """What can stand after `#` in a link to a page: its headings and the objects on it."""
    headings = {found["anchor"] or slug(found["title"]) for found in HEADING.finditer(page.prose)}
    package = documentation.package.__name__
    blocks = (block for block in documentation.autodocs if block.page == page.name)
    objects = {f"{package}.{name}" for block in blocks for name in block.names}
    return headings | objects


def slug(title: str) -> str:
    """The identifier of a heading, as the site makes it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower().replace("`", "")).strip())


def to_site(page: Page, documentation: Documentation, *, see_also: str = "") -> str:
    """A page of the site.

    Args:
        page: the page as it stands in the folder.
        documentation: all pages.
        see_also: Markdown to add before the reference of outputs.
    """
    pieces = FENCED.split(page.text)
    for index in range(0, len(pieces), 2):
        pieces[index] = _prose("".join(pieces[:index]), pieces[index], page, documentation)
    text = "".join(pieces).rstrip("\n") + "\n"
    if see_also:
        text += f"\n{see_also}\n"
    outputs = documentation.outputs.get(page.name, [])
    if outputs:
        blocks = [_identifier(f"{output.__module__}.{output.__qualname__}", (), level=3) for output in outputs]
        text += "\n## Outputs\n\n" + "\n".join(blocks)
    return text


def _prose(before: str, text: str, page: Page, documentation: Documentation) -> str:
    """A stretch of a page without blocks of code; `before` is what precedes it."""
    text = _autodocs(before, text, page, documentation)
    text = ALERT.sub(lambda found: _admonition(found["kind"].lower(), QUOTED.sub("", found["text"])), text)
    text = TIP.sub(lambda found: _admonition("warning" if found["warning"] else "tip", found["text"]), text)
    text = HEADING.sub(_heading, text)
    text = LINK.sub(lambda found: f"[{found['text']}]({_target(found['target'])})", text)
    text = LIST_AFTER_TEXT.sub(lambda found: f"{found['text']}\n{found['item']}", text)
    return replace_references(text, documentation.link)


def _autodocs(before: str, text: str, page: Page, documentation: Documentation) -> str:
    """A stretch with its `[[autodoc]]` blocks in the form of mkdocstrings, which brings their headings."""
    while found := AUTODOC.search(text):
        start = text[: found.start()]
        own = OWN_HEADING.search(start)
        if own and own["title"] == found["name"].rpartition(".")[2]:
            level, start = len(own["marks"]), start[: own.start()]
        else:
            level = max([len(heading["marks"]) for heading in HEADING.finditer(before + start)][-1:], default=1) + 1
        block = documentation.autodoc(page, found)
        identifier = f"{documentation.package.__name__}.{block.name}"
        text = start + _identifier(identifier, block.methods, level) + text[found.end() :]
    return text


def _identifier(identifier: str, methods: tuple[str, ...], level: int) -> str:
    """The block that mkdocstrings replaces by the object's documentation."""
    names = f"[{', '.join(methods)}]"
    options = {"heading_level": level, "members": names, "inherited_members": names}
    return f"::: {identifier}\n    options:\n" + "".join(f"      {name}: {of}\n" for name, of in options.items())


def _admonition(kind: str, text: str) -> str:
    return f"!!! {kind}\n\n{indent(text.strip(), '    ')}\n"


def _heading(found: re.Match) -> str:
    anchor = f" {{ #{found['anchor']} }}" if found["anchor"] else ""
    return f"{found['marks']} {found['title']}{anchor}"


def _target(target: str) -> str:
    """The target of a link with the suffix that the site's pages have."""
    path, mark, anchor = target.partition("#")
    if is_external(target) or not path:
        return target
    return f"{path.removesuffix('.md')}.md{mark}{anchor}"
