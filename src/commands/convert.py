"""What the command `vidformers convert` does besides `vidformers.conversion`: class names, settings, uploads."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from vidformers.conversion import convert_checkpoint
from vidformers.conversion.configure import parse_settings
from vidformers.conversion.load import class_named
from vidformers.conversion.verify import Report


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    settings: Sequence[str] = (),
    dtype: str = "float32",
    model_class: str | None = None,
    hub_repo: str | None = None,
    **options: Any,
) -> list[Report]:
    """Write an original checkpoint as a directory for `from_pretrained`, and check it.

    Args:
        source: the original checkpoint.
        out: the directory to write.
        settings: fields of the configuration, "field=value" or "tower.field=value" each.
        dtype: name of the type of the weights on disk.
        model_class: name of the class to make where it isn't the file's own.
        hub_repo: the repository that the directory is for; without an owner, it is the user's.
        **options: as for [`~vidformers.conversion.convert_checkpoint`].

    Returns:
        The reports of the checks, all passed.

    Raises:
        ConversionError: as `convert_checkpoint`.
        ValueError: settings or labels that are none.
    """
    overrides, hub_repo = parse_settings(settings), hub_repo and full_name(hub_repo)
    return convert_checkpoint(
        source,
        out,
        dtype=getattr(torch, dtype),
        model_class=model_class and class_named(model_class),
        hub_repo=hub_repo,
        **options,
        **overrides,
    )


def full_name(repo: str) -> str:
    """A repository's name with its owner; of a bare name that is who is logged in at the Hub."""
    from huggingface_hub import HfApi

    return repo if "/" in repo else f"{HfApi().whoami()['name']}/{repo}"


def push(directory: str | os.PathLike, repo: str) -> str:
    """Upload a directory to a repository of the Hugging Face Hub, made if it doesn't exist; returns its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    url = api.create_repo(repo, exist_ok=True)
    api.upload_folder(repo_id=url.repo_id, folder_path=directory, commit_message="Add weights from vidformers")
    return str(url)
