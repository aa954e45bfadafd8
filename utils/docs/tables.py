"""Tables from the code: published checkpoints, the forms of their files, and the rules that convert them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from html import escape
from importlib import import_module
from inspect import cleandoc

from vidformers.commands.listing import describe
from vidformers.conversion.ops import Chain, Op
from vidformers.conversion.rules import Form, Rule, forms_of
from vidformers.families import FAMILIES, Family


NUMBER = re.compile(r"(?<=[._])\d+(?=/)|(?<=\.)\d+(?=\.|$)")
"""A number of a layer in a tensor's name."""


def family_page(family: Family) -> str:
    """The page of one family's checkpoints and rules."""
    forms = forms_of(family.model_type)
    rules = {form.title: example_rules(form) for form in forms}
    operations = {type(step) for each in rules.values() for entry in each for step in steps(entry.op)}
    used = sorted(operations, key=lambda kind: kind.__name__)
    return "\n".join(
        [
            f"# Conversion of {family.title}",
            "",
            f"How `vidformers convert` reads the original files of [{family.title}]"
            f"(../model_doc/{family.model_type}.md). This page is made from the rules that it works with; "
            "`vidformers reverse` reads them backwards.",
            "",
            "## Published checkpoints",
            "",
            *presets(family),
            "",
            "## Forms of files",
            "",
            *_table(("form", "class", "known by"), map(form_row, forms)),
            "",
            "## Operations",
            "",
            *_table(("operation", "what ours is"), ((f"`{kind.__name__}`", summary(kind)) for kind in used)),
            *(line for form in forms for line in form_section(form, rules[form.title])),
        ]
    )


def presets(family: Family) -> Iterator[str]:
    """The published checkpoints: what they are, and which files hold them."""
    rows = []
    for name, preset in family.presets.items():
        files = [f"[{url.rsplit('/', 1)[-1]}]({url})" for url in (preset.source, preset.probe) if url]
        rows.append(
            (
                code(name),
                f"[`{preset.architecture}`][vidformers.{preset.architecture}]",
                *describe(family, preset),
                "<br>".join(files) or "not public",
                preset.license or "not known",
            )
        )
    yield from _table(("preset", "class", "layers × width", "input", "original files", "license"), rows)


def form_row(form: Form) -> tuple[str, str, str]:
    """The cells of a form."""
    return (
        f"[{form.title}](#{_anchor(form.title)})",
        f"[`{form.architecture}`][vidformers.{form.architecture}]" + (", on request" if form.on_request else ""),
        "<br>".join(map(code, form.fingerprint)),
    )


def form_section(form: Form, rules: Sequence[Rule]) -> Iterator[str]:
    """One form: where files hold its tensors, its rules, and what it leaves out."""
    yield from ("", f"## {form.title[0].upper()}{form.title[1:]} {{ #{_anchor(form.title)} }}", "")
    rows = []
    for key, entry in form.entries.items():
        places = [f"`{place}`" if place else "the top of the file" for place in (*entry.places, *entry.versions)]
        rows.append((f"`{key}/`" if key else "names as they are", entry.file, ", ".join(places)))
    yield from _table(("names below", "file", "where, the usual place first"), rows)
    yield ""
    yield from _table(("original", "ours", "operation", "why"), map(rule_row, rules))
    if form.left_out:
        yield ""
        yield from _table(
            ("section that is left out", "why"), ((code(name), why) for name, why in form.left_out.items())
        )


def example_rules(form: Form) -> list[Rule]:
    """The rules for the configurations of the published checkpoints and the usual one, with "{i}" for layers."""
    config_class = getattr(import_module("vidformers"), form.architecture).config_class
    own = [preset for preset in FAMILIES[form.family].presets.values() if preset.architecture == form.architecture]
    found: dict[tuple, Rule] = {}
    for config in (*(config_class(**preset.config) for preset in own), config_class()):
        for entry in form.rules(config):
            ours, theirs = (
                tuple(dict.fromkeys(NUMBER.sub("{i}", name) for name in side)) for side in (entry.ours, entry.theirs)
            )
            found.setdefault((ours, theirs, entry.why), replace(entry, ours=ours, theirs=theirs))
    return list(found.values())


def rule_row(rule: Rule) -> tuple[str, str, str, str]:
    """The cells of a rule."""
    return (
        "<br>".join(map(code, rule.theirs)) or "none",
        "<br>".join(map(code, rule.ours)) or "none",
        code(described(rule.op)) if rule.ours else "",
        rule.why,
    )


def steps(op: Op) -> Iterator[Op]:
    """The operations that an operation consists of."""
    if isinstance(op, Chain):
        for step in op.steps:
            yield from steps(step)
    else:
        yield op


def described(op: Op) -> str:
    """An operation as it stands in a rule."""
    if isinstance(op, Chain):
        return " → ".join(described(step) for step in op.steps)
    given = [str(getattr(op, name)) for name in getattr(op, "__match_args__", ())]
    return f"{type(op).__name__}({', '.join(given)})" if given else type(op).__name__


def summary(kind: type) -> str:
    """The first line of a class' docstring."""
    return cleandoc(kind.__doc__).splitlines()[0]


def code(name: str) -> str:
    """A name as code that may go on in the next line after a dot, a slash or an underscore."""
    breakable = re.sub(r"([./_])", r"\1<wbr>", escape(name, quote=False))
    return f"<code>{breakable}</code>"


def _anchor(title: str) -> str:
    return "form-" + "".join(letter if letter.isalnum() else "-" for letter in title)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
