"""Directories in the published format, written from original files and back, whole or not at all."""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from vidformers.files import check_target, explained_write, written_whole
from vidformers.progress import Progress, no_progress

from .card import write_card
from .load import Plan, Request, build, form_of, planned
from .ops import ConversionError
from .processors import processors_of, tokenizer_beside
from .provenance import noted_entries, read_provenance, write_provenance
from .rules import Form, reverse
from .sources import check_suffix, tensor_leaves
from .verify import (
    RELOAD_TOLERANCE,
    Report,
    adapter,
    compare,
    compare_tensors,
    compare_with_original,
    load_directory,
    run_stages,
)


def convert_checkpoint(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    probe: str | os.PathLike | None = None,
    tokenizer: str | os.PathLike | None = None,
    dtype: torch.dtype = torch.float32,
    original_repo: str | os.PathLike | None = None,
    hub_repo: str | None = None,
    progress: Progress = no_progress,
    **options: Any,
) -> list[Report]:
    """Write an original checkpoint as a directory that `from_pretrained` loads, and prove it.

    The directory gets weights, configuration, processors, a model card and `provenance.json`. It appears under its
    name once its tensors equal the original's and the model loaded from it gives the numbers of the one in memory.

    Args:
        source: the original checkpoint or directory, as for [`load_original`].
        out: the directory to write; it must not exist, or be empty.
        probe: the file of a classifier head.
        tokenizer: vocabulary of a text tower; by default the one beside the weights, where the original has it there.
        dtype: type of the weights on disk.
        original_repo: a checkout of the original code, to run beside the model.
        hub_repo: the Hub repository from which the card loads the model.
        progress: called as work is done.
        options: other arguments of [`load_original`], such as `preset`, and fields of the configuration.

    Returns:
        The reports of the checks, all passed.

    Raises:
        ConversionError: as [`load_original`], a name that can't be written, a full disk, a failed check.
    """
    with _as_conversion_error():
        out = check_target(out, folder=True)
    with planned(source, probe, Request(**options)) as plan:
        tokenizer = Path(tokenizer) if tokenizer else tokenizer_beside(plan)
        processors, model_class, reports = processors_of(plan, tokenizer), type(plan.model), []
        build(plan, dtype, progress)
        _return_memory(plan)
        calls = adapter(plan.form.family).example_calls(plan.model.config, plan.form.architecture)
        expected = run_stages(plan.model, calls)
        if original_repo is not None:
            reports.append(compare_with_original(plan.model, plan.found, original_repo))
            _stop_on_failure(reports)
        with written_whole(out, folder=True) as (folder,):
            progress("writing", 0, 1)
            with _as_conversion_error(), explained_write(out, sum(each.nbytes for each in plan.model.parameters())):
                plan.model.save_pretrained(folder)
                for processor in processors:
                    processor.save_pretrained(folder)
            progress("writing", 1, 1)
            del plan.model  # Two models at once would need twice the memory.
            _return_memory(plan)
            reports.append(compare_tensors(folder, plan.rules, plan.found, progress))
            _return_memory(plan)
            actual = run_stages(model_class.from_pretrained(folder, dtype=dtype).eval(), calls)
            reports.append(compare("reloaded directory", expected, actual, RELOAD_TOLERANCE))
            _stop_on_failure(reports)
            with _as_conversion_error(), explained_write(out):
                parity = [report.summary for report in reports]
                provenance = write_provenance(folder, plan, dtype, parity, progress, tokenizer)
                write_card(folder, plan, provenance, hub_repo)
    return reports


def _return_memory(plan: Plan) -> None:
    """Give the memory of what was read, and what is free, back: glibc would keep blocks of the size of weights."""
    for part in plan.found.values():
        part.source.release()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@contextmanager
def _as_conversion_error() -> Iterator[None]:
    """Turn the errors of `vidformers.files` into a `ConversionError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConversionError(str(error)) from error


def _stop_on_failure(reports: list[Report]) -> None:
    if failed := [str(report) for report in reports if not report.passed]:
        raise ConversionError("the converted model is not the original; nothing was written.\n" + "\n\n".join(failed))


# ------------------------------------------------------------------------------------------------------ and back


def reverse_directory(
    directory: str | os.PathLike,
    out: str | os.PathLike,
    *,
    probe_out: str | os.PathLike | None = None,
    progress: Progress = no_progress,
) -> dict[str, str]:
    """Write a directory's weights as the original files hold them.

    Entries, prefixes and types are those of the file that was converted, where `provenance.json` tells them, and the
    usual ones otherwise, so that directories from elsewhere can be reversed too.

    Args:
        directory: a directory in the published format.
        out: the checkpoint to write, a `.pt`, `.npz` or `.safetensors` file that must not exist.
        probe_out: the file for the classifier head, which a model with one needs.
        progress: called with an activity and how much of it is done.

    Returns:
        Tensors that are not given back, with the reason: those of the original that conversion left out, in its
        names, and those that only our model has.

    Raises:
        ConversionError: for files that can't be written, a missing `probe_out`, and directories that can't be read.
            Either all files are written or none.
    """
    directory, targets = Path(directory), {"checkpoint": Path(out)}
    if probe_out is not None:
        targets["probe"] = Path(probe_out)
    _check_targets(targets)
    progress("loading the model", 0, 1)
    model, provenance = load_directory(directory), read_provenance(directory)
    progress("loading the model", 1, 1)
    form = form_of(model, provenance.get("form"))
    if set(form.files) != set(targets):
        raise ConversionError(f"{directory}: its original files are {' and '.join(form.files)}; name a file for each.")
    # A file that lacks what is new in the model has no place for it: the usual form is another.
    has_new_modules = provenance.get("initialized") or provenance.get("initialised")  # as older ones spell it
    trees = _original_trees(model, form, {} if has_new_modules else noted_entries(form, provenance))
    for file, tree in trees.items():
        types = {tensor.dtype for _, tensor in tensor_leaves(tree)}
        if targets[file].suffix == ".npz" and torch.bfloat16 in types:
            raise ConversionError(f"{targets[file]}: cannot be written (numpy has no BFloat16); name a .pt file.")
    with written_whole(*(targets[file] for file in trees)) as places:
        for done, (file, place) in enumerate(zip(trees, places, strict=True)):
            progress("writing files", done, len(trees))
            num_bytes = sum(tensor.nbytes for _, tensor in tensor_leaves(trees[file]))
            with _as_conversion_error(), explained_write(targets[file], num_bytes):
                _save(trees[file], place)
    progress("writing files", len(trees), len(trees))
    return _not_given(model, form)


def _check_targets(targets: Mapping[str, Path]) -> None:
    """Raise unless files of these names can be written and read again."""
    for target in targets.values():
        with _as_conversion_error():
            check_target(target)
        check_suffix(target)
    if len({target.absolute() for target in targets.values()}) < len(targets):
        raise ConversionError(f"{targets['probe']}: checkpoint and probe are two files; give each a name of its own.")


def _original_trees(
    model: PreTrainedModel, form: Form, noted: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What each original file holds, in its names and, where that was noted, types."""
    trees: dict[str, dict[str, Any]] = {}
    for name, tensor in reverse(form.rules(model.config), model.state_dict().__getitem__):
        key, bare = form.split(name)
        entry = form.entries[key]
        note = noted.get(key, {"entry": entry.places[0], "prefix": entry.prefix, "dtypes": []})
        dtype = getattr(torch, note["dtypes"][0]) if len(note["dtypes"]) == 1 else tensor.dtype
        tree = _state_dict_at(trees.setdefault(entry.file, {}), note["entry"])
        # Views would make torch.save write the whole tensor that they look at, once per view or in full for one.
        tree[note["prefix"] + bare] = tensor.to(dtype, copy=True)
    return trees


def _state_dict_at(tree: dict, place: str) -> dict:
    """The state dict at a place of a file, made on first use; an index of a list gives a list that holds it alone."""
    first, _, rest = place.partition("/")
    if not place:
        return tree
    if rest == "{index}" or rest.isdigit():
        return tree.setdefault(first, [{}])[0]
    return _state_dict_at(tree.setdefault(first, {}), rest)


def _not_given(model: PreTrainedModel, form: Form) -> dict[str, str]:
    """What `reverse_directory` returns."""
    rules = list(form.rules(model.config))
    left_out = {form.split(name)[1]: rule.why for rule in rules if not rule.ours for name in rule.theirs}
    made = {name for rule in rules if rule.theirs for name in rule.ours}
    return left_out | {name: "the original has no such tensor" for name in model.state_dict() if name not in made}


def _save(tree: dict, place: Path) -> None:
    """Write a tree as a file of the kind that its suffix says, with "/" between the names of nested entries."""
    if place.suffix == ".npz":
        with place.open("wb") as file:
            np.savez(file, **{name: tensor.numpy() for name, tensor in tensor_leaves(tree)})
    elif place.suffix == ".safetensors":
        save_file(dict(tensor_leaves(tree)), place)
    else:
        torch.save(tree, place)
