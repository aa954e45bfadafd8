"""check_docs.py sees every kind of fault, and pages and tables of the site hold what they are made from."""

import importlib
import itertools
import sys
from pathlib import Path

import pytest

import vidformers
from vidformers.conversion.rules import forms_of
from vidformers.families import FAMILIES


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "utils"))

from checks.check_docs import SHAPE, check  # noqa: E402
from docs.docstrings import parse, to_markdown  # noqa: E402
from docs.names import Documentation  # noqa: E402
from docs.pages import to_site  # noqa: E402
from docs.tables import code, example_rules, family_page  # noqa: E402


NUMBERS = itertools.count()
INIT = '''"""A package."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from . import conversion, inference, training, video

__all__ = ["Model", "count"]


@dataclass
class Stages:
    """What all outputs have.

    Args:
        stages: (S, B, N, D).
    """

    stages: torch.Tensor | None = None


@dataclass
class Output(Stages, ModelOutput):
    """What [`Model`] gives, besides the fields of [`Stages`].

    Args:
        features: (B, N, D).
        loss: scalar.
    """

    features: torch.Tensor | None = None
    loss: torch.Tensor | None = None


class Model:
    """A model of [`Output`]s; `size` of it is in [`~count`].

    Args:
        size (`int`, *optional*, defaults to 3): of it.
    """

    def __init__(self, size: int = 3):
        self.size = size

    def forward(self, video: torch.Tensor, mask: torch.Tensor | None = None) -> Output:
        """Compute.

        Args:
            video: (B, T, C, H, W).
            mask: (B, K) token numbers.

        Returns:
            [`Output`].
        """

    def features(self, video: torch.Tensor) -> torch.Tensor:
        """Compute.

        Args:
            video: (B, T, C, H, W).

        Returns:
            (B, N, D).
        """


def count(items: list) -> int:
    """Number of items.

    Args:
        items: to count.
    """
'''
PAGE = """# Model

See [`Model`], [`Model.forward`] and [the guide](../guide#how-to).

## Model

[[autodoc]] Model
    - forward
    - features

## count

[[autodoc]] count
"""
GUIDE = """# Guide

## How to

```python
model = [`Nothing`]  # [nowhere](nowhere)
```

Back to [models](model_doc/model), or its [forward](model_doc/model#sample.Model.forward).
"""
TOCTREE = """- title: All
  sections:
    - local: guide
      title: Guide
    - local: model_doc/model
      title: Model
"""
FILES = {
    "{package}/__init__.py": INIT,
    "{package}/conversion.py": '"""Conversion."""\n\n__all__ = []\n',
    "{package}/inference.py": '"""Models on videos."""\n\n__all__ = []\n',
    "{package}/training.py": '"""Training."""\n\n__all__ = []\n',
    "{package}/video.py": '"""Videos."""\n\n__all__ = []\n',
    "docs/_toctree.yml": TOCTREE,
    "docs/guide.md": GUIDE,
    "docs/model_doc/model.md": PAGE,
}
CODE, MODEL = "{package}/__init__.py", "docs/model_doc/model.md"
# The file, what is replaced in it and by what, and the report.
PLANTED = {
    "reference on a page": (MODEL, "[`Model`]", "[`Modell`]", "docs/model_doc/model.md: [`Modell`] names nothing"),
    "reference to a method": (MODEL, "[`Model.forward`]", "[`Model.go`]", "[`Model.go`] names nothing"),
    "reference in a docstring": (CODE, "[`~count`]", "[`~counter`]", "{package}.Model: [`~counter`] names nothing"),
    "link to a page": (MODEL, "../guide#", "guide#", "links guide#how-to, but there is no docs/model_doc/guide.md"),
    "link to a heading": (MODEL, "#how-to", "#why", "links ../guide#why, but docs/guide.md has no such heading"),
    "link to an object": ("docs/guide.md", "Model.forward", "Model.go", "has no such heading"),
    "component": (MODEL, "See", "<hfoptions>\nSee", "uses <hfoptions>"),
    "autodoc of nothing": (MODEL, "[[autodoc]] count", "[[autodoc]] county", "names county, which doesn't exist"),
    "autodoc of no method": (MODEL, "- features", "- feature", "names feature, which doesn't exist"),
    "public name": (CODE, '"count"]', '"count", "Output"]', "{package}.Output: public, but no page"),
    "page without entry": ("docs/other.md", "", "# Other", "docs/other.md: not in docs/_toctree.yml"),
    "entry without page": ("docs/_toctree.yml", "guide", "guides", "docs/_toctree.yml: names guides"),
    "argument too many": (CODE, "items: to", "item: to", "{package}.count: its docstring explains `item`"),
    "argument too few": (
        CODE,
        "mask: (B, K) token numbers.",
        "",
        "Model.forward: its docstring doesn't explain `mask`",
    ),
    "argument of a class": (
        CODE,
        "size: int = 3)",
        "length: int = 3)",
        "{package}.Model: its docstring explains `size`",
    ),
    "no field of a base": (CODE, "the fields of [`Stages`]", "more", "Output: its docstring doesn't explain `stages`"),
    "shape of a base's field": (CODE, "(S, B, N, D)", "them", "Stages: the docstring gives no shape for"),
    "no field of an output": (CODE, "        loss: scalar.\n", "", "Output: its docstring doesn't explain `loss`"),
    "shape of an argument": (CODE, "(B, K) token", "token", "Model.forward: the docstring gives no shape for `mask`"),
    "shape of the result": (CODE, '(B, N, D).\n        "', 'Them.\n        "', "no shape for what it returns"),
    "shape of a field": (CODE, "features: (B, N, D)", "features: them", "Output: the docstring gives no shape for"),
    "no entry": (CODE, "items: to count", "items, to count", "{package}.count: 'items, to count.' in `Args` is not"),
}


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """Writes a package with pages under a name of its own; gives them and that name."""
    package = f"sample_{next(NUMBERS)}"
    monkeypatch.syspath_prepend(tmp_path)

    def write(file=None, old="", new=""):
        files = dict(FILES)
        if file:
            assert old in files.get(file, "")
            files[file] = files[file].replace(old, new) if old else new
        for name, text in files.items():
            path = tmp_path / name.format(package=package)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("#sample.", f"#{package}."), "utf-8")
        return Documentation(tmp_path / "docs", importlib.import_module(package)), package

    return write


def test_pages_of_this_repository_are_right():
    assert check(Documentation(ROOT / "docs", vidformers)) == []


def test_clean_sample_passes(sample):
    assert check(sample()[0]) == []


@pytest.mark.parametrize(("file", "old", "new", "report"), PLANTED.values(), ids=PLANTED.keys())
def test_planted_fault_is_reported(sample, file, old, new, report):
    documentation, package = sample(file, old, new)
    assert any(report.format(package=package) in fault for fault in check(documentation))


@pytest.mark.parametrize(
    ("text", "is_shape"),
    {
        "(B, N, D)": True,
        "(B,) seconds": True,
        "tokens (M·B, K + L, P), sorted": True,
        "(B, T, A - 1)": True,
        "(B or 1, L)": True,
        "(B, N')": True,
        "(B, T₀, h, w, D)": True,
        "(B, T, …)": True,
        "scalar": True,
        "always `None`; kept": True,
        "(see there)": False,
        "(a mask, which is optional)": False,
        "(B)": False,
        "of the encoder": False,
    }.items(),
)
def test_shapes_are_told_from_prose(text, is_shape):
    assert bool(SHAPE.search(text)) == is_shape


def test_docstring_becomes_markdown():
    text = """Do it.

    Args:
        one (`int`, *optional*, defaults to 1): the first
            of them, see [`One`].
        two, three: the others.

    Returns:
        (B, N).

    Source: there.
    """
    assert to_markdown(text, lambda name: f"<{name}>").splitlines() == [
        "Do it.",
        "",
        "**Arguments**",
        "",
        "- `one` (`int`, *optional*, defaults to 1): the first",
        "    of them, see <One>.",
        "- `two`: the others.",
        "- `three`: the others.",
        "",
        "**Returns**",
        "",
        "(B, N).",
        "",
        "Source: there.",
    ]
    assert list(parse(text).entries("Args")) == ["one", "two", "three"]


PAGE_AND_SITE = {
    "tip": ("<Tip>\n\nNot so.\n\n</Tip>", "!!! tip\n\n    Not so.\n"),
    "warning": ("<Tip warning={true}>\n\nNo.\n\n</Tip>", "!!! warning\n\n    No.\n"),
    "alert": ("> [!NOTE]\n> So.\n> Really.", "!!! note\n\n    So.\n    Really.\n"),
    "list": ("Some:\n- one\n- two", "Some:\n\n- one\n- two"),
    "anchor": ("## Part [[part-one]]", "## Part { #part-one }"),
    "link": ("[it](model_doc/model#model)", "[it](model_doc/model.md#model)"),
    "address": ("[it](https://a.b/c)", "[it](https://a.b/c)"),
    "reference": ("[`~video.decode`] and [`Model`]", "`decode` and [`Model`][{package}.Model]"),
    "code": ("```python\n[`Model`]\n- [a](b)\n```", "```python\n[`Model`]\n- [a](b)\n```"),
    "block under its name": (
        "## count\n\n[[autodoc]] count",
        "::: {package}.count\n    options:\n      heading_level: 2\n      members: []\n      inherited_members: []\n",
    ),
    "block under another heading": (
        "## All\n\n[[autodoc]] Model\n    - features",
        "## All\n\n::: {package}.Model\n    options:\n      heading_level: 3\n      members: [features]\n"
        "      inherited_members: [features]\n",
    ),
}


@pytest.mark.parametrize(("page", "site"), PAGE_AND_SITE.values(), ids=PAGE_AND_SITE.keys())
def test_page_of_the_site(sample, page, site):
    documentation, package = sample("docs/guide.md", "", f"# Guide\n\n{page}\n")
    text = to_site(documentation.pages["guide"], documentation)
    assert text.rstrip() == "# Guide\n\n" + site.replace("{package}", package).rstrip()


def test_outputs_are_added_to_the_page_of_the_model(sample):
    documentation, package = sample()
    text = to_site(documentation.pages["model_doc/model"], documentation)
    assert f"## Outputs\n\n::: {package}.Output\n" in text and f"::: {package}.Stages\n" in text


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_page_of_a_family_has_every_form_rule_and_checkpoint(family):
    text = family_page(family)
    rows = {line for line in text.splitlines() if line.startswith("|")}
    for name, preset in family.presets.items():
        (row,) = (row for row in rows if row.startswith(f"| {code(name)} |"))
        assert all(url in row for url in (preset.source, preset.probe) if url)
        assert (preset.license or "not known") in row
    for form in forms_of(family.model_type):
        assert form.title in text
        rules = example_rules(form)
        assert len(rules) > 0
        for rule in rules:
            cells = [code(name) for name in (*rule.theirs, *rule.ours)]
            assert any(rule.why in row and all(cell in row for cell in cells) for row in rows), rule
