"""Damaged, hostile and foreign files: each is read rightly or refused by name, and nothing of it is run."""

import argparse
import datetime
import io
import pathlib
import pickle
import random
import struct
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidformers.conversion import ConversionError, pickles, sources
from vidformers.conversion.sources import open_source


WEIGHTS = {"w": torch.randn(8, 16), "b": torch.randn(16).half(), "tied": torch.zeros(4)}


def save(path, tree):
    if path.suffix == ".npz":
        np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in tree.items()})
    elif path.suffix == ".safetensors":
        save_file(tree, path)
    else:
        torch.save(tree, path)
    return path


def read_all(path):
    with open_source(path) as source:
        return {name: source.read(name).clone() for name in source.tensors}


def record_of(path, ending):
    """Where the bytes of a record begin in an archive, and how many there are."""
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(ending))
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name + extra, info.compress_size


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 255
    path.write_bytes(data)


# ----------------------------------------------------------------------------------------------------- training files


def training_state():
    scores = defaultdict(list, loss=[0.5], accuracy=[np.float64(0.25)])
    nested = defaultdict(dict)
    nested["a"]["b"] = np.int64(3)
    return {
        "scores": scores,
        "nested": nested,
        "best": np.float32(1.5),
        "flag": np.bool_(True),
        "history": np.arange(6.0).reshape(2, 3),
        "rng_state": {"numpy": np.random.get_state(), "python": random.getstate(), "torch": torch.get_rng_state()},
        "started": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
        "took": datetime.timedelta(hours=3),
        "output_dir": pathlib.Path("runs/1"),
        "args": argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("a"), when=datetime.date(2024, 5, 1)),
        "epoch": 7,
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before torch 1.6"])
def test_what_training_leaves_beside_weights_is_passed_over(tmp_path, zipped):
    tree = {"model": OrderedDict(WEIGHTS), **training_state()}
    torch.save(tree, tmp_path / "run.pt", _use_new_zipfile_serialization=zipped)
    with open_source(tmp_path / "run.pt") as source:
        assert {name.partition("/")[0] for name in source.tensors} == {"model", "rng_state"}
        assert all(torch.equal(source.read(f"model/{name}"), tensor) for name, tensor in WEIGHTS.items())


def test_weights_in_a_defaultdict_are_found(tmp_path):
    torch.save({"model": defaultdict(int, WEIGHTS)}, tmp_path / "run.pt")
    assert set(read_all(tmp_path / "run.pt")) == {"model/w", "model/b", "model/tied"}


def test_nothing_of_numpy_is_made_of_a_file(tmp_path):
    torch.save({"best": np.float32(1.5), "type": np.dtype("f4")}, tmp_path / "run.pt")
    tree = pickles.unpickled(tmp_path / "run.pt", mmap=True)
    assert all(isinstance(value, pickles._StandIn) for value in tree.values())


def test_what_a_program_allows_in_pickles_stays_allowed(tmp_path):
    torch.save(WEIGHTS, tmp_path / "file.pt")
    with torch.serialization.safe_globals([np.dtype, argparse.Namespace]):
        read_all(tmp_path / "file.pt")
        assert {np.dtype, argparse.Namespace} <= set(torch.serialization.get_safe_globals())


# ---------------------------------------------------------------------------------------------------------- checksums


@pytest.mark.parametrize("record", ["/data/0", "/data/1", "/data/2"])
def test_a_damaged_tensor_is_named(tmp_path, record):
    path = save(tmp_path / "file.pt", {"model": WEIGHTS})
    start, size = record_of(path, record)
    flip(path, start + size // 2)
    with pytest.raises(ConversionError, match=r"file\.pt: model/\w+ is damaged: .*checksum.*Download it again"):
        read_all(path)


def test_damage_in_what_is_not_read_does_not_matter(tmp_path):
    path = save(tmp_path / "file.pt", {"model": WEIGHTS, "opt": {"m": torch.randn(100)}})
    flip(path, record_of(path, "/data/3")[0])
    with open_source(path) as source:
        assert torch.equal(source.read("model/w"), WEIGHTS["w"])
        with pytest.raises(ConversionError, match="opt/m is damaged"):
            source.read("opt/m")


def test_a_damaged_index_is_noticed(tmp_path):
    path = save(tmp_path / "file.pt", WEIGHTS)
    start, size = record_of(path, "data.pkl")
    for position in range(start, start + size, 7):
        save(path, WEIGHTS)
        flip(path, position)
        with pytest.raises(ConversionError, match=r"file\.pt: "):
            read_all(path)


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / "file.pt", WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_all(path)["w"], WEIGHTS["w"])


def test_a_compressed_archive_is_refused(tmp_path):
    path = save(tmp_path / "file.pt", WEIGHTS)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ConversionError, match=r"small\.pt: .*is compressed.*save it again with torch\.save"):
        read_all(tmp_path / "small.pt")


@pytest.mark.filterwarnings("ignore")  # torch warns of what it then refuses
def test_a_program_is_called_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        archive.writestr("file/code/model.py", "pass", zipfile.ZIP_DEFLATED)
        for name in ("constants.pkl", "data.pkl", "version"):
            archive.writestr(f"file/{name}", "3\n")
    with pytest.raises(ConversionError, match=r"file\.pt: .*TorchScript"):
        read_all(tmp_path / "file.pt")


def test_a_storage_is_checked_once_for_all_its_tensors(tmp_path, monkeypatch):
    flat = torch.randn(1000)
    path = save(
        tmp_path / "file.pt", {f"w{i}": flat[100 * i : 100 * i + 100] for i in range(10)} | {"empty": flat[:0]}
    )
    monkeypatch.setattr(sources, "WINDOW_BYTES", 1000)  # mapped anew several times
    checked, crc32 = [], sources.zlib.crc32
    monkeypatch.setattr(sources.zlib, "crc32", lambda data: (checked.append(len(data)), crc32(data))[1])
    tensors = read_all(path)
    assert checked == [4000]
    assert torch.equal(torch.cat([tensors[f"w{i}"] for i in range(10)]), flat)


# ----------------------------------------------------------------------------------------------- what holds no weights


FAULTS = {
    "not finite": [torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("-inf")]).bfloat16()],
    "of type int8": [torch.ones(2, dtype=torch.int8)],
    "of type bool": [torch.ones(2, dtype=torch.bool)],
    "of type float8_e4m3fn": [torch.ones(2).to(torch.float8_e4m3fn)],
    "of type complex64": [torch.ones(2, dtype=torch.complex64)],
    "without values (on the meta device)": [torch.ones(2, device="meta")],
    "sparse": [torch.eye(3).to_sparse()],
    "of type qint8": [lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)],
}


@pytest.mark.parametrize(("fault", "tensor"), [(fault, tensor) for fault, kinds in FAULTS.items() for tensor in kinds])
@pytest.mark.filterwarnings("ignore")  # torch announces the end of quantized tensors
def test_what_holds_no_weights_is_named(tmp_path, fault, tensor):
    bad = tensor() if callable(tensor) else tensor
    torch.save({"model": {"good": torch.ones(3), "bad": bad}}, tmp_path / "file.pt")
    with open_source(tmp_path / "file.pt") as source:
        assert torch.equal(source.read("model/good"), torch.ones(3))
        with pytest.raises(ConversionError) as error:
            source.read("model/bad")
    assert f"file.pt: expected weights, finite floating-point numbers; {fault}: model/bad. Take" in str(error.value)


def test_of_many_bad_tensors_five_are_named(tmp_path):
    tree = {f"layer{i}": torch.tensor([float("nan")]) for i in range(8)} | {"steps": torch.tensor(3)}
    with (
        open_source(save(tmp_path / "file.safetensors", tree)) as source,
        pytest.raises(ConversionError, match=r"not finite: layer3, (layer\d, ){3}layer\d and 3 more\."),
    ):
        source.read("layer3")


# ------------------------------------------------------------------------------------------------- damage of any kind


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors"])
def test_random_damage_is_an_error_with_the_file_or_does_no_harm(tmp_path, suffix):
    path = save(tmp_path / f"file{suffix}", WEIGHTS)
    whole, chance = path.read_bytes(), random.Random(0)
    # Nothing in a safetensors file tells whether its values are what they were.
    end = 8 + struct.unpack("<Q", whole[:8])[0] if suffix == ".safetensors" else len(whole)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 4, 30])):
            data[chance.randrange(end)] = chance.randrange(256)
        path.write_bytes(data)
        try:
            tensors = read_all(path)
        except ConversionError as error:
            assert f"file{suffix}: " in str(error)
            refused += 1
        else:
            found = [tensor for name, tensor in tensors.items() if name in WEIGHTS]
            assert suffix == ".safetensors" or all(
                any(torch.equal(tensor, w) for w in WEIGHTS.values()) for tensor in found
            )
    assert refused > 50


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4",  # TokenError
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }}",  # SyntaxError
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999, 9999999), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4), }",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (3, 4), }",
    ],
)
def test_headers_of_arrays_that_are_damaged_or_foreign(tmp_path, header):
    text = header.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(48))
    with pytest.raises(ConversionError, match=r"file\.npz: "):
        read_all(tmp_path / "file.npz")


def test_an_archive_that_would_fill_the_memory(tmp_path):
    path, size = tmp_path / "file.npz", 3 * 2**30
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(1000))
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", size + len(header.getvalue()))
    path.write_bytes(data)
    with pytest.raises(ConversionError, match=r"file\.npz: .* bytes would become 3,221,.*at most 100 times"):
        read_all(path)


def deep(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def wide():
    value: list = []
    for _ in range(20):
        value = [value] * 10
    return value


def round_trip():
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize("bomb", [lambda: deep(100), wide, round_trip], ids=["deep", "wide", "round"])
def test_nested_containers_end_somewhere(tmp_path, monkeypatch, bomb):
    monkeypatch.setattr(sources, "MOST_VALUES", 10_000)
    torch.save({"w": torch.ones(1), "history": bomb()}, tmp_path / "file.pt")
    with pytest.raises(ConversionError, match=r"file\.pt: its containers hold each other more than 32 deep, or more"):
        read_all(tmp_path / "file.pt")


def test_a_pickle_nested_more_deeply_than_python_can_follow(tmp_path):
    depth = 50_000
    inner = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        archive.writestr("file/data.pkl", inner)
        archive.writestr("file/version", "3\n")
    with pytest.raises(ConversionError, match=r"file\.pt: "):
        read_all(tmp_path / "file.pt")


@pytest.mark.parametrize("error", [KeyError("x"), struct.error("x"), RecursionError(), pickle.UnpicklingError("x")])
def test_whatever_a_reader_raises_names_the_file(tmp_path, monkeypatch, error):
    def failing(*arguments, **options):
        raise error

    path = save(tmp_path / "file.pt", WEIGHTS)
    monkeypatch.setattr(torch, "load", failing)
    with pytest.raises(ConversionError, match=r"file\.pt: (truncated, damaged|refused)"):
        read_all(path)
