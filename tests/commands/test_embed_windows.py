"""`vidformers embed --window`: rows of windows in files and folders."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from typer.testing import CliRunner, Result

from tests.bad_disks import full_disk, unwritable_folder
from tests.inference.directories import directory_of
from tests.video_files import truncate, write_video
from vidformers.commands.cli import app
from vidformers.inference.embedder import VideoEmbedder
from vidformers.inference.windows import Windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model and some videos: one of 30 frames, one of 10, and one that is cut off."""
    folder = tmp_path_factory.mktemp("embed")
    directory_of("VJEPA2Model", folder / "model")
    (folder / "videos").mkdir()
    write_video(folder / "videos/one.mp4", num_frames=30)
    write_video(folder / "videos/two.part.mp4", num_frames=10)
    truncate(write_video(folder / "whole.mp4"), 0.3).rename(folder / "videos/cut.mp4")
    return folder


@pytest.fixture(scope="module")
def expected(folder) -> dict[str, list]:
    embedder = VideoEmbedder.from_pretrained(folder / "model", device="cpu")
    videos = {name: folder / "videos" / name for name in ("one.mp4", "two.part.mp4")}
    windows = Windows(0.4, 0.2, num_frames=4)
    rows = list(embedder.embed(videos, windows))
    return {name: [row for row in rows if row.name == name] for name in videos}


def run(folder, out, *arguments, expect: int = 1) -> str:
    options = ["--model", folder / "model", "--out", out, "--num-frames", 4, *arguments]
    result = CliRunner().invoke(app, ["embed", str(folder / "videos"), *map(str, options)], env={"COLUMNS": "200"})
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


def check(record: dict, array: np.ndarray, rows: list) -> None:
    np.testing.assert_allclose(array, np.stack([row.embedding for row in rows]), rtol=1e-5, atol=2e-6)
    assert record["num_windows"] == len(rows)
    for found, row in zip(record["windows"], rows, strict=True):
        assert found["frame_indices"] == list(row.frame_indices) and found["window"] == row.window
        times = found["start_seconds"], found["middle_seconds"], found["end_seconds"]
        assert times == (row.start_seconds, row.middle_seconds, row.end_seconds)


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_files(suffix, folder, expected, tmp_path):
    out = tmp_path / f"out.{suffix}"
    output = run(folder, out, "--window", "0.4s", "--step", "0.2s", "--batch-size", 3)
    assert "cut.mp4: Cannot decode" in output and "2 of 3 videos" in output
    if suffix == "npz":
        archive = np.load(out)
        arrays, about = {name: archive[name] for name in archive.files}, json.loads(str(archive["__metadata__"]))
        del arrays["__metadata__"]
    else:
        with safe_open(out, "np") as file:
            arrays, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["embeddings"]
        about = json.loads(about)
    assert about["windows"] == Windows(0.4, 0.2, num_frames=4).record and about["pool"] == "mean"
    assert set(arrays) == set(about["videos"]) == set(expected)
    for name, rows in expected.items():
        check(about["videos"][name], arrays[name], rows)


def test_a_folder_of_arrays_goes_on(folder, expected, tmp_path):
    out = tmp_path / "features"
    options = ["--layout", "npy", "--window", "0.4s", "--step", "0.2s"]
    run(folder, out, *options)
    assert sorted(path.name for path in out.iterdir()) == ["one.json", "one.npy", "two.json", "two.npy"]
    for name, rows in expected.items():
        stem = name.partition(".")[0]
        record = json.loads((out / f"{stem}.json").read_text())
        assert record["video"] == name and record["windows"] and record["model"] == str(folder / "model")
        array = np.load(out / f"{stem}.npy")
        assert array.dtype == np.float32
        check(record | {"windows": record["windows"]}, array, rows)
    before = (out / "one.npy").stat().st_mtime_ns
    (out / "two.npy").unlink()
    run(folder, out, *options)
    assert (out / "one.npy").stat().st_mtime_ns == before and (out / "two.npy").exists()


def test_conventions_and_their_edges(folder, tmp_path):
    run(folder, tmp_path / "out.npz", "--window", "videomae_v2_thumos")
    archive = np.load(tmp_path / "out.npz")
    assert archive["one.mp4"].shape[0] == len(range(0, 30 - 15, 4)) and "two.part.mp4" not in archive.files
    run(folder, tmp_path / "pad.npz", "--window", "16f", "--step", "8f", "--edge", "pad")
    assert {name: len(array) for name, array in np.load(tmp_path / "pad.npz").items() if array.ndim} == {
        "one.mp4": 3,
        "two.part.mp4": 1,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step", "2s"], "give --window too"),
        (["--window", "4"], "Expected a window such as 4s or 16f"),
        (["--window", "4s", "--edge", "cut"], "edge to be one of drop, pad, move_back, keep"),
        (["--window", "4s", "--layout", "csv"], "Expected layout npy, got 'csv'"),
        (["--window", "4s", "--layout", "npy", "--pool", "none"], "one vector a window"),
    ],
)
def test_bad_options(options, message, folder, tmp_path):
    out = tmp_path / ("out" if "--layout" in options else "out.npz")
    assert message in run(folder, out, *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["out.npz", "out.safetensors", "out"])
def test_a_full_disk_and_an_unwritable_folder(out, folder, tmp_path):
    options = ["--window", "0.2s", "--step", "0.04s", *([] if "." in out else ["--layout", "npy"])]
    with full_disk(tmp_path / "disk") as disk:
        assert "no space left on the device; free about" in run(folder, disk / out, *options).replace("\n", " ")
        assert not [path for path in disk.rglob("*") if path.is_file() and path.name != "filling"]
        (disk / "filling").unlink()
        assert "2 of 3 videos" in run(folder, disk / out, *options)
    output = run(folder, unwritable_folder(tmp_path / "locked") / out, *options)
    assert "choose another folder" in output and "Traceback" not in output
    (tmp_path / "file").write_text("")
    assert "there is no folder" in run(folder, tmp_path / "file" / out, *options)


@pytest.mark.parametrize("out", ["out.npz", "out"])
def test_a_file_that_breaks_off(out, folder, tmp_path):
    """Its first windows are kept, it is named, and where a run can go on it is tried again."""
    whole, layout = write_video(tmp_path / "whole.mkv", num_frames=60), [] if "." in out else ["--layout", "npy"]
    path = tmp_path / "video.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    arguments = ["embed", path, "--model", folder / "model", "--out", tmp_path / out, "--window", "4f", *layout]

    def embed(*options: str) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), *options], env={"COLUMNS": "200"})

    result = embed("--json")
    record = json.loads(result.stdout)
    assert result.exit_code == 1 and (record["done"], record["videos"]) == (0, 1)
    assert "breaks off after frame 29" in record["failures"]["video.mkv"]
    assert "Not read to their end" in result.stderr and result.stderr.rstrip().endswith("video.mkv")
    if layout:
        assert len(np.load(tmp_path / "out/video.npy")) == 8
        assert "tries them again" in embed().output
        path.write_bytes(whole.read_bytes())
        assert embed().exit_code == 0 and len(np.load(tmp_path / "out/video.npy")) == 15
        assert embed().exit_code == 0
        (tmp_path / "out/video.json").write_text("{}")
        assert "does not tell of a video's windows" in embed().output
    else:
        assert len(np.load(tmp_path / out)["video.mkv"]) == 8


def test_ray_is_asked_for(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'vidformers[ray]'" in run(folder, tmp_path / "out.npz", "--engine", "ray")
    assert "give that too" in run(folder, tmp_path / "out.npz", "--ray-address", "auto")
    assert list(tmp_path.iterdir()) == []


def test_alike_names_and_files_in_the_way(folder, tmp_path):
    (tmp_path / "taken").write_text("mine")
    assert "is a file; name a folder" in run(folder, tmp_path / "taken", "--layout", "npy", "--window", "1s")
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.1.mp4", "a.2.mp4"):
        (videos / name).write_bytes((folder / "videos/one.mp4").read_bytes())
    result = CliRunner().invoke(
        app, ["embed", str(videos), "--model", str(folder / "model"), "--out", str(tmp_path / "o"), "--layout", "npy"]
    )
    assert result.exit_code == 1 and "would be written as a.npy" in result.output
