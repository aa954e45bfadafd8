"""Tables of Lance: rows of windows that are added, gone on with and never double, and what they become elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from tests.bad_disks import full_disk, unwritable_folder
from tests.inference.directories import directory_of
from tests.video_files import truncate, write_video
from vidformers.commands.cli import app
from vidformers.inference.embedder import Embedding, VideoEmbedder
from vidformers.inference.store import FileState, Store
from vidformers.inference.windows import Windows


pytestmark = pytest.mark.ecosystem

OPTIONS = ["--window", "0.4s", "--step", "0.2s", "--num-frames", "4"]
WINDOWS = Windows(0.4, 0.2, num_frames=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    directory_of("VJEPA2Model", folder)
    return folder


@pytest.fixture
def videos(tmp_path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "one's.mp4", num_frames=50)
    write_video(folder / "two.mp4", num_frames=20)
    return folder


def embed(videos, model, table, *options, expect: int = 0) -> str:
    arguments = ["embed", videos, "--model", model, "--out", table, *OPTIONS, *options]
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


def rows_of(table: Path) -> dict[str, list[int]]:
    """By file name, the numbers of the windows that a table holds."""
    found: dict[str, list[int]] = {}
    if not list(table.glob("_versions/*.manifest")):
        return found
    for row in lancedb.connect(table.parent).open_table(table.stem).to_arrow().to_pylist():
        found.setdefault(Path(row["video"]).name, []).append(row["window"])
    return {name: sorted(numbers) for name, numbers in sorted(found.items())}


def test_rows_are_those_of_the_embedder(videos, model, tmp_path):
    table = tmp_path / "library.lance"
    assert "holds 2 of 2 videos" in embed(videos, model, table, "--batch-size", 3)
    embedder = VideoEmbedder.from_pretrained(model, device="cpu", num_frames=4)
    files = {path.as_posix(): path for path in sorted(videos.iterdir())}
    expected = list(embedder.embed(files, WINDOWS))
    store = Store(table)
    assert store.videos() == {name: sum(row.name == name for row in expected) for name in files}
    found = [row for name in files for row in store.rows_of(name)]
    for one, other in zip(found, expected, strict=True):
        assert (one.name, one.window, one.num_windows) == (other.name, other.window, other.num_windows)
        assert one.frame_indices == other.frame_indices
        assert (one.start_seconds, one.middle_seconds, one.end_seconds) == (
            other.start_seconds,
            other.middle_seconds,
            other.end_seconds,
        )
        torch.testing.assert_close(one.embedding, other.embedding, rtol=1e-5, atol=2e-6)
    schema = lancedb.connect(tmp_path).open_table("library").schema
    assert schema.field("embedding").type == pa.list_(pa.float32(), len(expected[0].embedding))


def test_runs_go_on(videos, model, tmp_path, monkeypatch):
    table, opened = tmp_path / "library.lance", []
    embed(videos, model, table)
    initialize = VideoEmbedder._items
    monkeypatch.setattr(
        VideoEmbedder,
        "_items",
        lambda self, name, *args: opened.append(Path(name).name) or initialize(self, name, *args),
    )
    before = lancedb.connect(tmp_path).open_table("library").version
    embed(videos, model, table)
    assert not opened and rows_of(table) == {"one's.mp4": list(range(9)), "two.mp4": list(range(3))}
    assert lancedb.connect(tmp_path).open_table("library").version - before <= 1
    write_video(videos / "three.mp4", num_frames=30)
    truncate(write_video(tmp_path / "whole.mp4"), 0.3).rename(videos / "cut.mp4")
    assert "cut.mp4: Cannot decode" in embed(videos, model, table, expect=1)
    assert opened == ["cut.mp4", "three.mp4"] and rows_of(table)["three.mp4"] == list(range(5))
    embed(videos, model, table, expect=1)
    assert opened[2:] == ["cut.mp4"], "what could not be read is tried again"


@pytest.mark.parametrize("options", [[], ["--checksum"]])
def test_changed_files_are_embedded_again(options, videos, model, tmp_path):
    table = tmp_path / "library.lance"
    embed(videos, model, table, *options)
    first = Store(table).rows_of((videos / "one's.mp4").as_posix())
    write_video(videos / "one's.mp4", num_frames=25, height=48, width=48)
    os.utime(videos / "two.mp4")
    output = embed(videos, model, table, *options)
    assert rows_of(table) == {"one's.mp4": list(range(4)), "two.mp4": list(range(3))} and "2 of 2" in output
    again = Store(table).rows_of((videos / "one's.mp4").as_posix())
    assert not torch.allclose(again[0].embedding, first[0].embedding, atol=1e-3)
    assert {row.num_windows for row in again} == {4}


def test_a_half_written_video_goes_on_inside(videos, model, tmp_path):
    table = tmp_path / "library.lance"
    embed(videos, model, table)
    path = (videos / "one's.mp4").as_posix()
    lancedb.connect(tmp_path).open_table("library").delete("window >= 4 AND video LIKE '%one%'")
    assert Store(table).done({path: FileState.of(path)}) == {path: (4, 9)}
    embed(videos, model, table)
    assert rows_of(table) == {"one's.mp4": list(range(9)), "two.mp4": list(range(3))}


def test_other_models_and_settings_are_refused(videos, model, tmp_path):
    table = tmp_path / "library.lance"
    embed(videos, model, table)
    rows = rows_of(table)
    output = embed(videos, model, table, "--step", "0.1s", expect=1)
    assert "made with windows" in output and '"step": 0.2' in output and '"step": 0.1' in output
    other, _ = directory_of("VJEPA2Model", tmp_path / "other")
    torch.nn.init.normal_(other.encoder.layernorm.bias)
    other.save_pretrained(tmp_path / "other")
    assert f"of {model}" in (output := embed(videos, tmp_path / "other", table, expect=1))
    assert f"of {tmp_path / 'other'}" in output and "choose another table" in output
    assert "made with dtype float32" in embed(videos, model, table, "--dtype", "bfloat16", expect=1)
    assert rows_of(table) == rows
    (tmp_path / "link").symlink_to(model)  # the same model by another name
    embed(videos, tmp_path / "link", table)


def start(videos, model, table, *options) -> subprocess.Popen:
    arguments = ["embed", videos, "--model", model, "--out", table, *OPTIONS, *options]
    code = "import sys; from vidformers.commands.cli import app; app(sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_killed_runs_lose_a_batch_at_most(model, tmp_path):
    videos, table = tmp_path / "videos", tmp_path / "library.lance"
    videos.mkdir()
    for number in range(3):
        write_video(videos / f"{number}.mp4", num_frames=100)
    counts = [0]
    for wanted in (1, 15):
        process = start(videos, model, table, "--batch-size", 1)
        while process.poll() is None and sum(map(len, rows_of(table).values())) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = rows_of(table)
        assert all(numbers == list(range(len(numbers))) for numbers in found.values()), "first windows, none twice"
        counts.append(sum(map(len, found.values())))
        assert counts[-1] >= max(counts[-2], wanted)
    embed(videos, model, table)
    assert rows_of(table) == {f"{number}.mp4": list(range(19)) for number in range(3)}


def test_tidying_is_left_to_another_writer(videos, model, tmp_path, monkeypatch):
    """Other failures are told."""
    embed(videos, model, tmp_path / "library.lance")
    store, raised = Store(tmp_path / "library.lance"), []

    def optimize(table, **options):
        raise RuntimeError(raised[0])

    monkeypatch.setattr(type(store.table), "optimize", optimize)
    raised[:] = ["lance error: Retryable commit conflict for version 88: This Rewrite transaction was preempted"]
    store.clean()
    raised[:] = ["lance error: disk quota exceeded"]
    with pytest.raises(OSError, match="quota exceeded.*nothing is lost"):
        store.clean()


@pytest.mark.slow
def test_two_writers_at_once(model, tmp_path):
    videos, table = tmp_path / "videos", tmp_path / "library.lance"
    videos.mkdir()
    for number in range(3):
        write_video(videos / f"{number}.mp4", num_frames=100)
    processes = [start(videos, model, table, "--batch-size", size) for size in (1, 2)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert rows_of(table) == {f"{number}.mp4": list(range(19)) for number in range(3)}


def test_two_handles_write_no_row_twice(tmp_path):
    """Both begin before either has written, with overlapping rows."""
    settings = {"model": "m", "revision": "r"}
    uri, state = tmp_path / "library.lance", {"a": FileState(1, 1)}
    one, two = Store(uri, settings), Store(uri, settings)

    def rows(*numbers):
        return [Embedding("a", torch.full((4,), float(n)), None, (n,), None, n, 9, 0.0, 0.5, 1.0) for n in numbers]

    one.add(rows(0, 1, 2), state)
    two.add(rows(1, 2, 3), state)
    one.add(rows(3, 4), state)
    assert rows_of(uri) == {"a": [0, 1, 2, 3, 4]}


def test_exports(videos, model, tmp_path):
    table = tmp_path / "library.lance"
    embed(videos, model, table, "--stored-as", "float16")
    names = [path.as_posix() for path in sorted(videos.iterdir())]
    expected = {name: torch.stack([row.embedding for row in Store(table).rows_of(name)]).numpy() for name in names}

    def export(*arguments):
        result = CliRunner().invoke(app, ["extract", *map(str, [table, *arguments])])
        assert result.exit_code == 0, result.output

    export(tmp_path / "out.npz")
    archive = np.load(tmp_path / "out.npz")
    about = json.loads(str(archive["__metadata__"]))
    for name, array in expected.items():
        np.testing.assert_array_equal(archive[name], array)
        assert [each["window"] for each in about["videos"][name]["windows"]] == list(range(len(array)))
    export(tmp_path / "folder", "--layout", "npy")
    np.testing.assert_array_equal(np.load(tmp_path / "folder/two.npy"), expected[names[1]])
    export(tmp_path / "out.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert json.loads(found.schema.metadata[b"vidformers"])["windows"] == WINDOWS.record
    assert found.column("video").to_pylist() == [name for name in names for _ in expected[name]]
    np.testing.assert_array_equal(
        np.stack(found.column("embedding").to_pylist()), np.concatenate([*expected.values()])
    )
    embed(videos, model, tmp_path / "direct.parquet")
    direct = pyarrow.parquet.read_table(tmp_path / "direct.parquet")
    np.testing.assert_allclose(
        np.stack(direct.column("embedding").to_pylist()), np.concatenate([*expected.values()]), atol=2e-3
    )
    result = CliRunner().invoke(app, ["info", str(table), "--json"])
    summary = json.loads(result.output)
    assert (summary["videos"], summary["complete_videos"], summary["rows"]) == (2, 2, 12)
    assert (
        summary["windows"] == WINDOWS.record and summary["model"] == str(model) and summary["stored_as"] == "halffloat"
    )


def test_a_full_disk(videos, model, tmp_path):
    """Rows of before stay, and once there is space the same command goes on."""
    with full_disk(tmp_path / "disk") as disk:
        table = disk / "library.lance"
        assert "No space left on device" in embed(videos, model, table, expect=1)
        (disk / "filling").unlink()
        embed(videos / "two.mp4", model, table)
        space = os.statvfs(disk)
        (disk / "filling").write_bytes(bytes(space.f_bavail * space.f_frsize))
        output = embed(videos, model, table, expect=1)
        assert "No space left on device" in output and "run again: nothing is lost" in output
        output = embed(videos, model, disk / "rows.parquet", expect=1)
        assert "rows.parquet: no space left" in output and not (disk / "rows.parquet").exists()
        (disk / "filling").unlink()
        assert rows_of(table)["two.mp4"] == list(range(3))
        embed(videos, model, table)
        assert rows_of(table) == {"one's.mp4": list(range(9)), "two.mp4": list(range(3))}


def test_a_file_that_breaks_off(model, tmp_path):
    """The windows that it holds are kept; it is tried again, and embedded anew once it has been mended."""
    whole, table = write_video(tmp_path / "whole.mkv", num_frames=50), tmp_path / "library.lance"
    path = tmp_path / "video.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for _ in range(2):
        output = embed(path, model, table, "--json", expect=1)
        record = json.loads(output.splitlines()[-1])
        assert list(record["failures"]) == [path.as_posix()] and (record["done"], record["videos"]) == (0, 1)
        assert rows_of(table) == {"video.mkv": list(range(5))}
    assert json.loads(CliRunner().invoke(app, ["info", str(table), "--json"]).stdout)["complete_videos"] == 0
    path.write_bytes(whole.read_bytes())
    assert "holds 1 of 1" in embed(path, model, table)
    assert rows_of(table) == {"video.mkv": list(range(9))}


def test_what_a_killed_writer_left_of_a_new_table(videos, model, tmp_path):
    (tmp_path / "library.lance/_versions").mkdir(parents=True)
    embed(videos, model, tmp_path / "library.lance")
    assert rows_of(tmp_path / "library.lance")["two.mp4"] == [0, 1, 2]


def test_in_memory_file_system(tmp_path):
    store = Store("memory://test/library.lance", {"model": "m", "revision": "r"})
    store.add([Embedding("a", torch.ones(4), None, (0, 1), None, 0, 1, 0.0, 0.5, 1.0)], {"a": FileState(1, 2)})
    assert store.videos() == {"a": 1} and store.done({"a": FileState(1, 2)}) == {"a": (1, 1)}
    assert store.done({"a": FileState(1, 3)}) == {"a": (0, None)}


def test_bad_tables(videos, model, tmp_path, monkeypatch):
    lancedb.connect(tmp_path).create_table("taken", pa.table({"id": [1, 2]}))
    output = embed(videos, model, tmp_path / "taken.lance", expect=1)
    assert "is a table of something else, with the columns id. Choose another name" in output
    result = CliRunner().invoke(app, ["info", str(tmp_path / "absent.lance")])
    assert result.exit_code == 1 and "absent.lance: there is no such table" in result.output
    assert "--layout is for folders" in embed(videos, model, tmp_path / "folder.lance", "--layout", "npy", expect=1)
    assert "one vector a window" in embed(videos, model, tmp_path / "x.lance", "--pool", "none", expect=1)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", unwritable_folder(tmp_path / "locked")):
        output = embed(videos, model, folder / "x.lance", expect=1)
        assert "cannot be read or written" in output and "Check that the folder may be written" in output
        assert ".rs:" not in output
    table, add = tmp_path / "full.lance", Store._arrow
    embed(videos / "two.mp4", model, table)

    def full(self, *args):
        raise OSError("No space left on device")

    monkeypatch.setattr(Store, "_arrow", full)
    output = embed(videos, model, table, expect=1)
    assert "full.lance" in output and "No space left" in output and "run again: nothing is lost" in output
    monkeypatch.setattr(Store, "_arrow", add)
    embed(videos, model, table)
    assert rows_of(table) == {"one's.mp4": list(range(9)), "two.mp4": list(range(3))}
