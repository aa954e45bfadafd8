"""The page of the command line, from what `vidformers --help` says."""

import re
from html import unescape

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from vidformers.commands.cli import app


SHORTENED = re.compile(r"\*\*Commands\*\*:\n.*?(?=^## )", re.MULTILINE | re.DOTALL)
"""The list of the commands in a few words, which the headings repeat."""


def commands_page() -> str:
    """Every command with its arguments and options, in Markdown."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="vidformers"), name="vidformers")
    text = SHORTENED.sub("", text)
    return unescape(text.replace("# `vidformers`", "# Commands", 1))
