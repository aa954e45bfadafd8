"""Reading checkpoint files: every format, every kind of bad file, no code run, little memory used."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidformers.conversion import ConversionError, sources
from vidformers.conversion.sources import open_source


TENSORS = {"a": torch.randn(3, 4), "b": torch.arange(6, dtype=torch.float32), "scalar": torch.tensor(2.0)}


def write(path, tensors=TENSORS):
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def refuses(path, message):
    with pytest.raises(ConversionError, match=message), open_source(path):
        pass


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npz", ".safetensors"])
def test_formats(tmp_path, suffix):
    with open_source(write(tmp_path / f"file{suffix}")) as source:
        found = {name: (entry.shape, entry.dtype) for name, entry in source.tensors.items()}
        assert found == {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()}
        for name, tensor in TENSORS.items():
            assert torch.equal(source.read(name), tensor)


def test_names_of_nested_containers_are_paths(tmp_path):
    path = tmp_path / "file.pt"
    torch.save(
        {"model": {"w": torch.ones(2)}, "heads": [{"w": torch.zeros(1)}], "opt": {0: torch.ones(3)}, "n": 1}, path
    )
    with open_source(path) as source:
        assert set(source.tensors) == {"model/w", "heads/0/w", "opt/0"}


def test_names_of_flax_trees_are_kept(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, **{"params/layer/kernel": np.ones((2, 3), np.float16)})
    with open_source(path) as source:
        assert source.tensors["params/layer/kernel"].dtype == torch.float16


def test_the_format_before_torch_1_6(tmp_path):
    path = tmp_path / "file.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    with open_source(path) as source:
        assert torch.equal(source.read("a"), TENSORS["a"])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_is_mapped_anew_after_a_window(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(sources, "WINDOW_BYTES", 10)
    with open_source(write(tmp_path / f"file{suffix}")) as source:
        opened = []
        reopen = source._open
        monkeypatch.setattr(source, "_open", lambda: (opened.append(1), reopen())[1])
        for name, tensor in TENSORS.items():
            assert torch.equal(source.read(name), tensor)
    assert len(opened) == 2


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.ones(2)}, "args": Malicious()}, "file.pt")
    with (
        pytest.raises(ConversionError, match=r"file\.pt: refused, nothing in it was run.*(posix|nt)\.system"),
        open_source("file.pt"),
    ):
        pass
    assert not (tmp_path / "pwned").exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    refuses("file.pth", r"file\.pth: ")
    assert not (tmp_path / "pwned").exists()


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "file.npz", a=np.array([Malicious()], dtype=object))
    with (
        pytest.raises(ConversionError, match=r"file\.npz: a\.npy holds values of type object"),
        open_source(tmp_path / "file.npz"),
    ):
        pass


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_truncated_files(tmp_path, suffix, keep):
    path = write(tmp_path / f"file{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    refuses(path, rf"file\{suffix}: (truncated, damaged|empty file).*Download it again")


def test_a_member_that_was_damaged_is_found_when_it_is_read(tmp_path):
    path = write(tmp_path / "file.npz", {"a": torch.zeros(100_000)})
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("a.npy").header_offset + 200_000
    data = bytearray(path.read_bytes())
    data[start] ^= 255
    path.write_bytes(data)
    with open_source(path) as source, pytest.raises(ConversionError, match="truncated, damaged"):
        source.read("a")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pt", None, "no such file"),
        ("notes.txt", b"hello", r"unknown suffix '\.txt'; one of \.npz, \.safetensors, \.pt"),
        ("text.pt", b"<html>404</html>", "truncated, damaged, or not a .pt checkpoint|refused"),
        ("empty.pt", b"", "empty file"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refuses(tmp_path / name, message)


def test_a_directory(tmp_path):
    with (
        pytest.raises(ConversionError, match="is a directory; give the checkpoint file itself"),
        open_source(tmp_path),
    ):
        pass
