"""Tables from the code: the published checkpoints of a family and the rules that convert them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import import_module
from inspect import cleandoc

from vidformers.conversion.core import Chain, Drop, FamilyMap, Op, Part, Reader, Rule
from vidformers.families import Family


def family_page(family: Family) -> str:
    """The page of one family's checkpoints and rules."""
    table: FamilyMap = import_module(f"vidformers.conversion.maps.{family.model_type}").MAP
    rules = [entry for part in table.parts.values() for entry in part.rules]
    used = sorted({type(step) for entry in rules for step in steps(entry.op)}, key=lambda kind: kind.__name__)
    return "\n".join(
        [
            f"# Conversion of {family.title}",
            "",
            f"How `vidformers convert` reads the original files of [{family.title}]"
            f"(../model_doc/{family.model_type}.md). This page is made from the tables that it works with; "
            "`vidformers reverse` reads them backwards.",
            "",
            "## Published checkpoints",
            "",
            *presets(family),
            "",
            "## Model classes",
            "",
            *layouts(table),
            "",
            "## Operations",
            "",
            *_table(("operation", "what ours is"), ((f"`{kind.__name__}`", summary(kind)) for kind in used)),
            *(line for name, part in table.parts.items() for line in part_section(name, part)),
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
                *family.describe(name),
                "<br>".join(files) or "address not known",
                preset.license or "not known",
            )
        )
    yield from _table(("preset", "class", "layers × width", "input", "original files", "licence"), rows)


def layouts(table: FamilyMap) -> Iterator[str]:
    """Which parts each model class is made of."""
    rows = []
    for layout in table.layouts:
        parts = [
            f"[{name.replace('_', ' ')}](#{_anchor(name)})"
            + (f" → `{prefix}`" if prefix else "")
            + (" (if the files have it)" if name in layout.optional else "")
            for name, prefix in layout.parts.items()
        ]
        rows.append((f"[`{layout.architecture}`][vidformers.{layout.architecture}]", "<br>".join(parts)))
    yield from _table(("class", "parts, and what our names begin with"), rows)
    if table.left_out:
        yield ""
        rows = [(f"`{name}`", why) for name, why in table.left_out.items()]
        yield from _table(("entry of the files that is left out", "why"), rows)


def part_section(name: str, part: Part) -> Iterator[str]:
    """One part: where files hold it, its rules, and the configuration fields that its shapes give."""
    entries = ", ".join(f"`{entry}`" if entry else "the top of the file" for entry in part.entries)
    yield from ("", f"## {_title(name)} {{ #{_anchor(name)} }}", "")
    yield f"In the {part.file} at {entries}" + (f", names beginning with `{part.prefix}`." if part.prefix else ".")
    yield ""
    yield from _table(("original", "ours", "operation", "when, why"), map(rule_row, part.rules))
    if part.fields:
        yield ""
        rows = [
            (f"`{field}`", f"`{described(reader)}`", summary(type(reader))) for field, reader in part.fields.items()
        ]
        yield from _table(("configuration field", "read from", "which is"), rows)


def rule_row(rule: Rule) -> tuple[str, str, str, str]:
    """The cells of a rule."""
    return (
        "<br>".join(map(code, rule.sources)),
        "<br>".join(map(code, rule.targets)) or "none",
        code(described(rule.op)),
        conditions(rule),
    )


def conditions(rule: Rule) -> str:
    """When a rule applies, how often, and for what reason a tensor is left out."""
    said = []
    if rule.repeat:
        said.append(f"for each of {code(rule.repeat)}")
    for word, condition in (("with", rule.when), ("without", rule.unless)):
        if condition is not None:
            fields = [condition] if isinstance(condition, str) else condition
            said.append(f"{word} {' = '.join(code(str(field)) for field in fields)}")
    said += [step.reason for step in steps(rule.op) if isinstance(step, Drop)]
    return "; ".join(said)


def steps(op: Op) -> Iterator[Op]:
    """The operations that an operation consists of."""
    if isinstance(op, Chain):
        for step in op.steps:
            yield from steps(step)
    else:
        yield op


def described(value: Op | Reader) -> str:
    """An operation or a reader as it stands in the map."""
    if isinstance(value, Chain):
        return " → ".join(described(step) for step in value.steps)
    given = [] if isinstance(value, Drop) else [getattr(value, name) for name in getattr(value, "__match_args__", ())]
    given = [entry.__name__ if callable(entry) else str(entry) for entry in given if entry is not None]
    return f"{type(value).__name__}({', '.join(given)})" if given else type(value).__name__


def summary(kind: type) -> str:
    """The first line of a class' docstring."""
    return cleandoc(kind.__doc__).splitlines()[0]


def code(name: str) -> str:
    """A name as code that may go on in the next line after a dot, a slash or an underscore."""
    breakable = re.sub(r"([./_])", r"\1<wbr>", escape(name, quote=False))
    return f"<code>{breakable}</code>"


def _title(name: str) -> str:
    return name[0].upper() + name[1:].replace("_", " ")


def _anchor(name: str) -> str:
    return "part-" + "".join(letter if letter.isalnum() else "-" for letter in name)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
