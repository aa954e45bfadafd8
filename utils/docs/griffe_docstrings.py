"""Extension of griffe, which reads the code for mkdocstrings: our docstrings as Markdown, references as links."""

from pathlib import Path
from typing import Any

import griffe

import vidformers

from .docstrings import to_markdown
from .names import Documentation


class OurDocstrings(griffe.Extension):
    """Rewrites every docstring when it is found in the code.

    Args:
        docs: the folder with the pages that references lead to.
    """

    def __init__(self, docs: str):
        self.documentation = Documentation(Path(docs), vidformers)

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            module = obj.module.path
            obj.docstring.value = to_markdown(obj.docstring.value, lambda name: self.documentation.link(name, module))
