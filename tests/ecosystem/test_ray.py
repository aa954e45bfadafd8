"""`vidformers embed --engine ray`: the rows of one process, from a local Ray of two workers, whoever of them dies."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.directories import collection, directory_of
from vidformers.commands.embed import embed_files, embed_into_table
from vidformers.inference.store import Store
from vidformers.inference.windows import Windows


pytestmark = [
    *(pytest.mark.ecosystem, pytest.mark.slow, pytest.mark.xdist_group("ray")),
    pytest.mark.usefixtures("cluster"),
]

WINDOWS = Windows(0.4, 0.2, num_frames=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, seven videos of 19 windows, one that is no video, and the table that one process makes of them."""
    folder = tmp_path_factory.mktemp("ray")
    collection(folder, num_videos=7, num_frames=100)
    embed_into_table([folder / "videos"], folder / "model", folder / "expected.lance", windows=WINDOWS)
    return folder


def workers() -> list[int]:
    """Processes of the actors of this process's cluster."""
    parents, titles = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(path.name)] = (path / "cmdline").read_text()
        except OSError:
            continue
    ours = {number for number, parent in parents.items() if parent == os.getpid()}
    return [number for number in parents if parents[number] in ours and "_Actor" in titles[number]]


def check_rows(folder: Path, table: Path) -> None:
    """A table has the rows of the expected one, each once."""
    expected, found = Store(folder / "expected.lance"), Store(table)
    assert found.videos() == expected.videos() and len(found.videos()) == 7
    for name in expected.videos():
        for one, other in zip(found.rows_of(name), expected.rows_of(name), strict=True):
            assert (one.window, one.num_windows, one.frame_indices) == (
                other.window,
                other.num_windows,
                other.frame_indices,
            )
            assert (one.start_seconds, one.middle_seconds, one.end_seconds) == (
                other.start_seconds,
                other.middle_seconds,
                other.end_seconds,
            )
            torch.testing.assert_close(one.embedding, other.embedding, rtol=1e-5, atol=2e-6)


def test_a_worker_is_killed(folder, tmp_path):
    table, killed, failures, earlier = tmp_path / "library.lance", [], [], workers()

    def kill_one(activity: str, done: int, total: int) -> None:
        if activity == "embedding windows" and not killed:
            killed.append(next(number for number in workers() if number not in earlier))
            os.kill(killed[0], signal.SIGKILL)

    job = partial(embed_into_table, [folder / "videos"], folder / "model", table, windows=WINDOWS, ray={})
    assert job(progress=kill_one, on_failure=failures.append) == (7, 8)
    assert killed and killed[0] not in workers()
    assert [Path(failure.name).name for failure in failures] == ["broken.mp4"] and failures[0].error is not None
    check_rows(folder, table)
    assert Store(table).settings == Store(folder / "expected.lance").settings
    with pytest.raises(ValueError, match="made with windows"):
        job(windows=Windows(0.4, 0.1, num_frames=4))


def test_a_run_goes_on_with_either_engine(folder, tmp_path):
    table, videos, seen = tmp_path / "library.lance", sorted((folder / "videos").glob("[0-9].mp4")), []
    embed_into_table(videos[:3], folder / "model", table, windows=WINDOWS)
    job = partial(embed_into_table, videos, folder / "model", table, windows=WINDOWS)
    assert job(ray={}, progress=lambda *told: seen.append(told)) == (7, 7)
    assert seen[-1] == ("embedding videos", 4, 4)
    check_rows(folder, table)
    for ray_options in (None, {}):  # nothing is left to do
        assert job(ray=ray_options, progress=lambda *told: seen.append(told)) == (7, 7)
        assert seen[-1][0] == "loading the model"


def test_files(folder, tmp_path):
    out = tmp_path / "out.npz"
    assert embed_files([folder / "videos"], folder / "model", out, windows=WINDOWS, ray={}) == (7, 8)
    expected, archive = Store(folder / "expected.lance"), np.load(out)
    for name in expected.videos():
        rows = torch.stack([row.embedding for row in expected.rows_of(name)])
        np.testing.assert_allclose(archive[Path(name).name], rows, rtol=1e-5, atol=2e-6)


def test_an_error_of_a_worker_is_told(folder, tmp_path):
    model, _ = directory_of("VJEPA2Model", tmp_path / "model")
    state = {name: value for name, value in model.state_dict().items() if name != "encoder.layernorm.bias"}
    model.save_pretrained(tmp_path / "model", state_dict=state)
    with pytest.raises((OSError, ValueError), match=r"lacks the weights encoder\.layernorm\.bias"):
        embed_into_table([folder / "videos"], tmp_path / "model", tmp_path / "library.lance", ray={})


def test_an_address_where_nobody_is(folder, tmp_path):
    arguments = ["embed", folder / "videos", "--model", folder / "model", "--out", tmp_path / "library.lance"]
    code = "import sys; from vidformers.commands.cli import app; app(sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, arguments), "--engine", "ray", "--ray-address", "127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "No Ray cluster can be reached at 127.0.0.1:1" in " ".join(result.stderr.split())
