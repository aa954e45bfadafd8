"""The page of the command line, from what `vidformers --help` says."""

from html import unescape

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from vidformers.commands.cli import app


def commands_page() -> str:
    """Every command with its arguments and options, in Markdown."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="vidformers"), name="vidformers")
    return unescape(text.replace("# `vidformers`", "# Commands", 1))
