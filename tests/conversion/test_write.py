"""Writing: names are checked first, files appear whole or not at all, and nothing of a run that ended is left."""

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from tests.original_files import V2_CONFIG, v2_tree
from vidformers import files
from vidformers.conversion import (
    ConversionError,
    convert_checkpoint,
    load_original,
    reverse_directory,
    verify_directory,
    write,
)
from vidformers.conversion.provenance import noted_entries
from vidformers.conversion.rules import forms_of
from vidformers.files import PREFIX, check_target, explained_write, written_whole


# ---------------------------------------------------------------------------------------------- names, before any work


def taken(folder: Path) -> None:
    """Names of every kind that something stands in the way of."""
    (folder / "file").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full/mine").touch()
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("empty")
    (folder / "nowhere").symlink_to("gone")


TAKEN = {
    ".": "exists already",
    "..": "exists already",
    "full/..": "exists already",
    "file": "file: exists already; remove it or choose another name",
    "full": "full: exists already; remove it or choose another name",
    "link": "is a link to empty; name the place itself",
    "nowhere": "is a link to gone",
    "file/new": "there is no folder .*file; make it",
    "nowhere/new": "there is no folder .*nowhere; make it",
    "x" * 300: "cannot be made .*too long",
    "é" * 200: "cannot be made .*too long",
}


@pytest.mark.parametrize(("name", "message"), TAKEN.items(), ids=[name[:8] for name in TAKEN])
@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_names_that_cannot_be_written(tmp_path, monkeypatch, name, message, folder):
    taken(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        check_target(name, folder=folder)


def test_names_that_can_be_written(tmp_path, monkeypatch):
    taken(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("new", "empty", "new/folder/in/folders", "link/new"):
        assert check_target(name, folder=True) == Path(name)
    assert check_target("empty/new.pt") == Path("empty/new.pt")
    with pytest.raises(ValueError, match="exists already"):
        check_target("empty")
    with pytest.raises(ValueError, match="there is no folder .*missing; make it"):
        check_target("missing/new.pt")


def test_folders_that_may_not_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match="new: you may not write into .*; choose another folder"):
        check_target(tmp_path / "new", folder=True)


def test_a_disk_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path)
    with pytest.raises(ValueError, match="another disk begins here.*name a folder in it"):
        check_target(tmp_path, folder=True)


@pytest.mark.parametrize("name", ["file", "link", "x" * 300, "."])
def test_convert_and_reverse_look_at_names_before_they_read_anything(tmp_path, monkeypatch, name):
    taken(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConversionError, match=TAKEN[name]):
        convert_checkpoint("missing.pt", name)
    with pytest.raises(ConversionError, match=TAKEN[name]):
        reverse_directory("missing", name)
    with pytest.raises(ConversionError, match=TAKEN[name]):
        reverse_directory("missing", "back.pt", probe_out=name)


def test_reverse_looks_at_suffixes_and_pairs_of_names_first(tmp_path):
    with pytest.raises(ConversionError, match=r"back\.txt: unknown suffix '\.txt'; one of \.npz.* is expected"):
        reverse_directory("missing", tmp_path / "back.txt")
    with pytest.raises(ConversionError, match=r"back\.pt: checkpoint and probe are two files"):
        reverse_directory("missing", tmp_path / "back.pt", probe_out=tmp_path / "back.pt")


# ------------------------------------------------------------------------------------------------- whole or not at all


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(f"{PREFIX}*"))


def test_files_and_folders_take_their_names_at_the_end(tmp_path):
    with written_whole(tmp_path / "a.txt", tmp_path / "b.txt") as places:
        for place in places:
            place.write_text(place.name)
        assert not (tmp_path / "a.txt").exists()
    with written_whole(tmp_path / "deep/folder", folder=True) as (place,):
        (place / "c.txt").write_text("c.txt")
    written = {path.name: path.read_text() for path in tmp_path.rglob("*.txt")}
    assert written == {name: name for name in ("a.txt", "b.txt", "c.txt")}
    assert not leftovers(tmp_path) and not leftovers(tmp_path / "deep")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(error), written_whole(tmp_path / "a", folder=True) as (place,):
        (place / "config.json").write_text("{}")
        raise error
    assert not any(tmp_path.iterdir())


def test_of_several_files_all_appear_or_none(tmp_path, monkeypatch):
    replace = os.replace

    def failing(place, target):
        if target.name == "b":
            raise OSError(errno.EIO, "broken")
        replace(place, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="broken"), written_whole(tmp_path / "a", tmp_path / "b") as places:
        for place in places:
            place.touch()
    assert not any(tmp_path.iterdir())


@contextmanager
def writing_apart(folder: Path) -> Iterator[None]:
    """Another process that writes in `folder`, and is killed at the end, if not before."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with written_whole(folder / "out", folder=True) as (place,):
                (place / "config.json").write_text("{}")
                os.write(tell, b"!")
                signal.sigwait([signal.SIGUSR1])
        finally:
            os._exit(0)
    os.read(ready, 1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    with writing_apart(tmp_path):
        pass
    assert len(leftovers(tmp_path)) == 1 and not (tmp_path / "out").exists()
    with written_whole(tmp_path / "out", folder=True):
        assert len(leftovers(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_that_still_writes_is_left_alone(tmp_path):
    with writing_apart(tmp_path):
        with written_whole(tmp_path / "other") as (place,):
            place.touch()
            assert len(leftovers(tmp_path)) == 2
        assert len(leftovers(tmp_path)) == 1


def test_two_runs_of_one_process_number_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with written_whole(tmp_path / "out") as (one,), written_whole(tmp_path / "out") as (other,):
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "out").read_text() == "one"


def test_other_folders_that_look_alike_stay(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to("elsewhere")
    (tmp_path / f"{PREFIX}file").touch()
    with written_whole(tmp_path / "out") as (place,):
        place.touch()
    assert (tmp_path / "elsewhere").is_dir() and len(leftovers(tmp_path)) == 2


def test_sigterm_leaves_nothing(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, written_whole(tmp_path / "out", folder=True):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not any(tmp_path.iterdir()) and signal.getsignal(signal.SIGTERM) is before


def test_a_program_that_handles_sigterm_keeps_its_handler(tmp_path, monkeypatch):
    def handler(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with written_whole(tmp_path / "out") as (place,):
            assert signal.getsignal(signal.SIGTERM) is handler
            place.touch()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_threads_can_write(tmp_path):
    def work():
        with written_whole(tmp_path / "out") as (place,):
            place.touch()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- full disks


FULL = r"out: no space left on the device; free about 1,000 bytes or choose another folder\. Nothing was left behind\."


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disks(tmp_path, error):
    with pytest.raises(OSError, match=FULL), explained_write(tmp_path / "out", 1000):
        raise error


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_writers_on_a_full_device(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 1000, 0))
    target = tmp_path / "out"
    with pytest.raises(OSError, match=FULL), explained_write(target, 1000):
        torch.save({"a": torch.zeros(100_000)}, "/dev/full")
    with pytest.raises(OSError, match=FULL), explained_write(target, 1000), open("/dev/full", "wb") as file:
        np.savez(file, a=np.zeros(100_000))


def test_other_errors_of_writers_name_the_file(tmp_path):
    message = r"out: cannot be written \(PytorchStreamWriter failed\)\."
    with pytest.raises(OSError, match=message), explained_write(tmp_path / "out"):
        raise RuntimeError("PytorchStreamWriter failed\nat line 3")


# ----------------------------------------------------------------------------------------------- directories, and back


@pytest.fixture
def original(tmp_path) -> Path:
    torch.save(v2_tree(), tmp_path / "vit.pt")
    return tmp_path / "vit.pt"


@pytest.fixture
def interrupts():
    """Ctrl-C counts, also where a shell that runs the tests in the background lets its processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("activity", "way"),
    [("reading tensors", "SIGINT"), ("comparing tensors", "SIGINT"), ("comparing tensors", "SIGTERM")],
)
def test_a_conversion_that_is_stopped_leaves_nothing(original, interrupts, activity, way):
    def stop(name: str, done: int, total: int) -> None:
        if name == activity:
            signal.raise_signal(signal.Signals[way])

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        convert_checkpoint(original, original.with_name("out"), progress=stop, **V2_CONFIG)
    assert list(original.parent.iterdir()) == [original]


def test_cards_name_the_repository_or_say_what_to_put_there(original):
    out, pushed = original.with_name("out"), original.with_name("pushed")
    convert_checkpoint(original, out, **V2_CONFIG)
    convert_checkpoint(original, pushed, hub_repo="me/vjepa2", **V2_CONFIG)
    card, pushed_card = ((folder / "README.md").read_text() for folder in (out, pushed))
    assert '\ndirectory = "…"  # put the path of this directory here\nprocessor = ' in card
    assert "AutoModel.from_pretrained(directory)" in card and '"out"' not in card
    assert 'AutoVideoProcessor.from_pretrained("me/vjepa2")' in pushed_card
    assert 'AutoModel.from_pretrained("me/vjepa2")' in pushed_card and "directory =" not in pushed_card
    assert "Read as V-JEPA 2 hub file: encoder from `target_encoder`, predictor from `predictor`." in card
    assert json.loads((out / "provenance.json").read_text())["form"] == "V-JEPA 2 hub file"


def test_reverse_writes_both_files_or_none(original, monkeypatch):
    model = load_original(original, **V2_CONFIG)
    model.save_pretrained(original.with_name("out"))
    trees = {"checkpoint": {"a": torch.ones(1)}, "probe": {"b": torch.ones(1)}}
    monkeypatch.setattr(write, "_original_trees", lambda *arguments: trees)
    form = next(form for form in forms_of("vjepa2") if form.title == "V-JEPA 2 hub file")
    monkeypatch.setattr(type(form), "files", ("checkpoint", "probe"))
    save = torch.save

    def failing(tree, place):
        if "b" in tree:
            raise RuntimeError("PytorchStreamWriter failed")
        save(tree, place)

    monkeypatch.setattr(torch, "save", failing)
    before = set(original.parent.iterdir())
    names = {"out": original.with_name("back.pt"), "probe_out": original.with_name("probe.pt")}
    with pytest.raises(ConversionError, match=r"probe\.pt: cannot be written \(PytorchStreamWriter failed\)"):
        reverse_directory(original.with_name("out"), **names)
    assert set(original.parent.iterdir()) == before
    monkeypatch.setattr(torch, "save", save)
    reverse_directory(original.with_name("out"), **names)
    assert set(torch.load(names["out"])) == {"a"} and set(torch.load(names["probe_out"])) == {"b"}


# --------------------------------------------------------------------------------------------------- older provenances


def part(entry: str, prefix: str = "", dtype: str = "float32") -> dict:
    return {"file": "x", "entry": entry, "prefix": prefix, "dtypes": [dtype]}


OLD = {
    "vjepa2 action-conditioned": (
        ("vjepa2", 0),
        {"ac_encoder": part("target_encoder", "module."), "ac_predictor": part("predictor", "module.")},
        {
            "encoder": {"entry": "target_encoder", "prefix": "module.", "dtypes": ["float32"]},
            "predictor": {"entry": "predictor", "prefix": "module.", "dtypes": ["float32"]},
        },
    ),
    "videomae": (
        ("videomae", 0),
        {"classifier": part("model_ema", "module.", "float16")},
        {"": {"entry": "model_ema", "prefix": "module.", "dtypes": ["float16"]}},
    ),
    "videoprism": (
        ("videoprism", 0),
        {"video encoder": part("params/vision_encoder"), "text encoder": part("params/text_encoder", "", "float16")},
        {"": {"entry": "params", "prefix": "", "dtypes": ["float16", "float32"]}},
    ),
    "pe_core": (
        ("pe_core", 0),
        {"vision tower": part("weights", "module.visual."), "temperature": part("weights", "module.logit_")},
        {"": {"entry": "weights", "prefix": "module.", "dtypes": ["float32"]}},
    ),
}


@pytest.mark.parametrize(("form", "parts", "expected"), OLD.values(), ids=OLD)
def test_older_provenances_tell_where_the_entries_of_today_stood(form, parts, expected):
    family, index = form
    assert noted_entries(forms_of(family)[index], {"parts": parts}) == expected


def test_a_directory_with_an_older_provenance_is_verified(tmp_path):
    tree, other = v2_tree(predictor=False), v2_tree(seed=5, predictor=False)
    torch.save({"encoder": tree["target_encoder"], "target_encoder": other["target_encoder"]}, tmp_path / "vit.pt")
    load_original(tmp_path / "vit.pt", checkpoint_key="encoder", **V2_CONFIG).save_pretrained(tmp_path / "out")
    note = {"family": "vjepa2", "parts": {"encoder": part("encoder", "module.backbone.")}}
    (tmp_path / "out/provenance.json").write_text(json.dumps(note))
    assert all(report.passed for report in verify_directory(tmp_path / "out", source=tmp_path / "vit.pt"))


def test_a_directory_with_an_older_provenance_is_reversed(original):
    out = original.with_name("out")
    load_original(original, **V2_CONFIG).save_pretrained(out)
    parts = {"encoder": part("ema_encoder", "module.", "float16"), "predictor": part("predictor", "module.")}
    (out / "provenance.json").write_text(json.dumps({"family": "vjepa2", "parts": parts, "initialised": []}))
    reverse_directory(out, original.with_name("back.pt"))
    tree, expected = torch.load(original.with_name("back.pt")), torch.load(original)["target_encoder"]
    assert set(tree) == {"ema_encoder", "predictor"}
    for name, tensor in expected.items():
        if "pos_embed" not in name:
            assert torch.equal(tree["ema_encoder"][name.replace("backbone.", "")], tensor.half()), name


def test_writing_works_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with written_whole(tmp_path / "out") as (place,):
        place.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
