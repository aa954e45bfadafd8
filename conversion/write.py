"""Directories in the published format, written from original files and back, whole or not at all."""

import ctypes
import gc
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, PreTrainedModel

from vidformers.models.records import Family, Part

from .card import write_card, write_provenance
from .core import ConversionError, expand, lookup, reverse
from .load import Plan, Progress, Request, build, companion, no_progress, planned, public_class
from .rooms import family_map
from .sources import explain_full_disk, tensor_leaves
from .verify import (
    Report,
    adapter,
    compare_reloaded,
    compare_tensors,
    compare_with_original,
    failures,
    family_of,
    layout_of,
    load_directory,
    read_provenance,
    run_stages,
)


def convert_checkpoint(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    family: str | None = None,
    preset: str | None = None,
    probe: str | os.PathLike | None = None,
    checkpoint_key: str | None = None,
    probe_index: int = 0,
    tokenizer: str | os.PathLike | None = None,
    dtype: torch.dtype = torch.float32,
    model_class: type[PreTrainedModel] | None = None,
    original_repo: str | os.PathLike | None = None,
    progress: Progress = no_progress,
    **config_overrides: Any,
) -> list[Report]:
    """Write an original checkpoint as a directory that `from_pretrained` loads, and prove it.

    The directory gets the weights, the configuration, the processor, a model card and `provenance.json`. It
    appears under its name only after the tensors on disk were found equal to the original's, the model loaded from
    it gave the numbers of the one in memory, and, with `original_repo`, the original code gave them too.

    Args:
        source: the original checkpoint, or an original directory that holds it as `model.safetensors`.
        out: the directory to write; it must not exist, or be empty.
        family: as for `load_original`, like `preset`, `probe`, `checkpoint_key` and `probe_index`.
        preset: name of the published checkpoint.
        probe: the file of a classifier head.
        checkpoint_key: entry of the file to take.
        probe_index: which head of the probe's file to take.
        tokenizer: the vocabulary of a model with text, a sentencepiece model or a `tokenizer.json`. By default that of
            an original directory; without any, the directory has a video processor alone.
        dtype: type of the weights on disk.
        model_class: the class to build, as for `load_original`.
        original_repo: a checkout of the original code, to run beside the converted model.
        progress: called as work is done.
        config_overrides: fields of the configuration.

    Returns:
        The reports of the checks, all passed.

    Raises:
        ConversionError: as `load_original`, for a directory in the way, a full disk, and a check that fails. Nothing
            is left behind then.
    """
    out = Path(out)
    _check_free(out)
    request = Request(family, preset, checkpoint_key, probe_index, model_class, config_overrides)
    with planned(source, probe, request) as plan:
        tokenizer = tokenizer or _tokenizer_beside(plan)
        processors = _processors(plan, tokenizer)
        model = build(plan, dtype, progress)
        calls = adapter(plan.family).example_calls(model.config, plan.layout.architecture)
        expected = run_stages(model, calls)
        reports = []
        if original_repo is not None:
            reports.append(compare_with_original(model, plan.layout, plan.found, original_repo))
            _stop_on_failure(reports)
        weights_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
        with _folder_in_the_making(out) as folder, explain_full_disk(out, weights_bytes):
            progress("writing", 0, 1)
            model.save_pretrained(folder)
            for processor in processors:
                processor.save_pretrained(folder)
            progress("writing", 1, 1)
            # Two models at once would need twice the memory.
            model_class, config = type(model), model.config
            del model, plan.model
            _return_memory()
            reports.append(compare_tensors(folder, plan.layout, plan.found, config, progress))
            _return_memory()
            reports.append(compare_reloaded(folder, model_class, expected, calls, dtype))
            _stop_on_failure(reports)
            provenance = write_provenance(folder, plan, dtype, reports, progress, tokenizer and Path(tokenizer))
            write_card(folder, plan, provenance)
    return reports


def _return_memory() -> None:
    """Give freed memory back to the system: glibc would keep blocks of the size of weights for later."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(f"{out}: exists already; remove it or choose another name.")


def _stop_on_failure(reports: list[Report]) -> None:
    text = failures(reports)
    if text:
        raise ConversionError(f"the converted model is not the original; nothing was written.\n{text}")


@contextmanager
def _folder_in_the_making(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, or goes away if anything fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.unfinished-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _processors(plan: Plan, tokenizer_file: str | os.PathLike | None) -> list[Any]:
    """What prepares the model's input; joined in one if there is a tokenizer and the model has a class for that."""
    prepared = [each for each in (_image_processor(plan), _video_processor(plan)) if each is not None]
    if tokenizer_file is None:
        return prepared
    prepared.append(_tokenizer(plan, Path(tokenizer_file)))
    if len(prepared) == 1:
        return prepared
    return [public_class(_record(plan).processor_class)(*prepared)]


def _record(plan: Plan) -> Family | Part:
    """The entry of the family's record that the model's configuration belongs to."""
    return plan.family.record(plan.model.config.model_type)


def _followed(plan: Plan, path: str) -> dict[str, Any]:
    """Arguments of processors that follow from the configuration at a path."""
    config, follows = lookup(plan.model.config, path), family_map(plan.family.model_type).processor
    return {name: lookup(config, field) for name, field in follows.items()}


def _image_processor(plan: Plan) -> Any:
    """The image processor that follows from the configuration; `None` for a model without one."""
    if plan.layout.images is None:
        return None
    return public_class(_record(plan).image_processor_class)(**_followed(plan, plan.layout.images))


def _video_processor(plan: Plan) -> Any:
    """The video processor of the preset, or the one that follows from the configuration; `None` without videos."""
    if plan.layout.videos is None:
        return None
    arguments = _followed(plan, plan.layout.videos)
    arguments |= companion(family_map(plan.family.model_type), plan.found).get("video_processor", {})
    if plan.preset:
        arguments |= plan.family.presets[plan.preset].video_processor
    return public_class(plan.family.video_processor_class)(**arguments)


def _tokenizer_beside(plan: Plan) -> Path | None:
    """The tokenizer's file beside the weights, where the original, like the model, leaves its class to the file."""
    record, file = _record(plan), next(iter(plan.found.values())).source.path.with_name("tokenizer.json")
    return file if record.processor_class and record.tokenizer_class is None and file.is_file() else None


def _tokenizer(plan: Plan, file: Path) -> Any:
    """The tokenizer of a vocabulary's file, if the model can take its ids."""
    config, record = plan.model.config.get_text_config(), _record(plan)
    vocab_size, tokenizer_class = getattr(config, "vocab_size", None), record.tokenizer_class
    if vocab_size is None or (tokenizer_class is None and record.processor_class is None):
        raise ConversionError(f"{file}: {plan.layout.architecture} takes no text; leave the tokenizer out.")
    if not file.is_file():
        raise ConversionError(
            f"{file}: no such file; expected a sentencepiece model, a list of merges or a tokenizer.json."
        )
    kind = "tokenizer_file" if file.suffix == ".json" else "vocab_file"
    options = {kind: str(file), "model_max_length": config.max_position_embeddings}
    try:
        if tokenizer_class is None:
            tokenizer = AutoTokenizer.from_pretrained(file.parent)
        else:
            tokenizer = public_class(tokenizer_class)(**options)
    except (OSError, ValueError) as error:
        raise ConversionError(f"{file}: {error}") from error
    if len(tokenizer) > vocab_size:
        raise ConversionError(
            f"{file}: has {len(tokenizer)} pieces, but the model's table has {vocab_size}: it was trained with "
            "another vocabulary."
        )
    return tokenizer


# ------------------------------------------------------------------------------------------------------ and back


def reverse_directory(
    directory: str | os.PathLike, out: str | os.PathLike, *, probe_out: str | os.PathLike | None = None
) -> dict[str, str]:
    """Write a directory's weights as the original files hold them.

    Entries, prefixes and types are those of the file that was converted, where `provenance.json` tells them, and the
    usual ones otherwise, so that directories from elsewhere can be reversed too.

    Args:
        directory: a directory in the published format.
        out: the checkpoint to write, a `.pt`, `.npz` or `.safetensors` file that must not exist.
        probe_out: the file for the classifier head, which a model with one needs.

    Returns:
        Tensors that are not given back, with the reason: those of the original that conversion dropped, in its names,
        and those that only our model has.

    Raises:
        ConversionError: for files in the way, a missing `probe_out`, and directories that can't be read.
    """
    directory = Path(directory)
    model = load_directory(directory)
    family = family_of(model.config.model_type)
    noted = read_provenance(directory).get("parts", {})
    layout, maps = layout_of(family, type(model).__name__, noted), family_map(family.model_type)
    if layout.initialised:  # The file that it was made from has no place for its new modules.
        layout, noted = layout_of(family, layout.architecture), {}
    trees: dict[str, dict] = {}
    not_given: dict[str, str] = {}
    made: set[str] = set()
    for name in layout.parts:
        part = maps.parts[name]
        config = layout.config_of(name, model.config)
        if part.presence and not lookup(config, part.presence):
            continue
        pairs = expand(part.rules, config, layout.parts[name])
        not_given |= {source: pair.op.reason for pair in pairs if pair.is_optional for source in pair.sources}
        made |= {target for pair in pairs if pair.sources for target in pair.targets}
        tensors = _original_tensors(model, pairs, noted.get(name, {"prefix": part.prefix + part.under}))
        entry = noted.get(name, {}).get("entry", part.entries[0])
        _place(trees.setdefault(part.file, {}), entry, tensors)
    not_given |= {name: "the original has no such tensor" for name in model.state_dict() if name not in made}
    targets = {"checkpoint": Path(out)} | ({"probe": Path(probe_out)} if probe_out is not None else {})
    if set(trees) != set(targets):
        raise ConversionError(f"{directory}: its original files are {' and '.join(trees)}; name a file for each.")
    for file, tree in trees.items():
        _save_tree(tree, targets[file])
    return not_given


def _original_tensors(model: PreTrainedModel, pairs: list, noted: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """A part's state dict in the original's names and, where it was noted, type."""
    tensors = {noted["prefix"] + name: tensor for name, tensor in reverse(pairs, model.state_dict().__getitem__)}
    dtypes = noted.get("dtypes", [])
    if len(dtypes) == 1:
        tensors = {name: tensor.to(getattr(torch, dtypes[0])) for name, tensor in tensors.items()}
    # Views would make torch.save write the whole tensor that they look at, once per view or in full for one.
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _place(tree: dict, entry: str, tensors: dict[str, torch.Tensor]) -> None:
    """Put a state dict where `entry` says; an index of a list gives a list that holds it alone."""
    first, _, rest = entry.partition("/")
    if entry == "":
        tree.update(tensors)
    elif rest == "{index}" or rest.isdigit():
        tree[first] = [tensors]
    else:
        _place(tree.setdefault(first, {}), rest, tensors)


def _save_npz(tree: dict, target: Path) -> None:
    """Write an archive for `numpy.load`, with "/" between the names of nested entries."""
    with target.open("wb") as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in tensor_leaves(tree)})


def _save_tree(tree: dict, target: Path) -> None:
    if target.exists():
        raise ConversionError(f"{target}: exists already; remove it or choose another name.")
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    try:
        if target.suffix == ".npz":
            _save_npz(tree, unfinished)
        elif target.suffix == ".safetensors":
            save_file(dict(tensor_leaves(tree)), unfinished)
        else:
            torch.save(tree, unfinished)
        os.replace(unfinished, target)
    except (OSError, RuntimeError, TypeError) as error:
        raise ConversionError(f"{target}: cannot be written ({error}).") from error
    finally:
        unfinished.unlink(missing_ok=True)
