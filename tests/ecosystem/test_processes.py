"""`accelerate launch --no_python vidformers embed`: processes that share the videos, and each is embedded once."""

import json
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.inference.directories import collection
from vidformers.commands.embed import embed_files
from vidformers.inference.processes import Processes
from vidformers.inference.store import Store
from vidformers.inference.windows import Windows


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, five videos, and one that is none."""
    folder = tmp_path_factory.mktemp("processes")
    collection(folder, num_videos=5, num_frames=30)
    return folder


def launch(folder: Path, out: Path, *options: str) -> subprocess.CompletedProcess:
    """Two processes as of a machine with two GPUs; here they have the CPU, and talk through gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    command = [
        f"--main_process_port={port}",
        "--no_python",
        sys.executable,
        "-c",
        "from vidformers.commands.cli import main; main()",
    ]
    arguments = ["embed", folder / "videos", "--model", folder / "model", "--out", out, "--window", "0.4s"]
    return subprocess.run(
        [*launcher, *command, *map(str, arguments), "--num-frames", "4", *options], capture_output=True, text=True
    )


def test_all_rows_and_none_twice(folder, tmp_path):
    result = launch(folder, tmp_path / "library.lance", "--json")
    assert result.returncode == 1
    (line,) = result.stdout.splitlines()
    record = json.loads(line)
    broken = (folder / "videos/broken.mp4").as_posix()
    assert (record["videos"], record["done"], list(record["failures"])) == (6, 5, [broken])
    assert Store(tmp_path / "library.lance").videos() == {
        (folder / f"videos/{number}.mp4").as_posix(): 3 for number in range(5)
    }


def test_files(folder, tmp_path):
    """Two processes, here one after the other. A share is the same in every run, so that each goes on with its own."""
    shares = [Processes(rank, 2) for rank in range(2)]
    job = partial(embed_files, [folder / "videos"], folder / "model", windows=Windows(0.4, num_frames=4))
    for _ in range(2):
        assert sum(job(tmp_path / "features", layout="npy", processes=share)[0] for share in shares) == 5
        assert len(list((tmp_path / "features").glob("*.npy"))) == 5
    with pytest.raises(ValueError, match="a single file has one writer, and 2 processes share this job"):
        job(tmp_path / "features.npz", processes=shares[0])
    assert not (tmp_path / "features.npz").exists()
