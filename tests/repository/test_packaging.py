"""What a user installs: the sdist is whole, the wheel made from it has no tests, and its command works on its own."""

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vidformers


pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SOURCES = ("src", "conversion", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")
SOURCES += ("CONTRIBUTING.md", "Makefile", "constraints.txt")
UNREGISTERED = {"VIDFORMERS_AUTO": "0"}  # an import that loads no torch


def build(kind: str, tree: Path, out: Path) -> Path:
    """Make an "sdist" or a "wheel" of a source tree, as an installer does."""
    out.mkdir(exist_ok=True)
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, out], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist of a copy of this repository, and the wheel that is made of it alone."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "copy").mkdir()
    (folder / "copy/tests").symlink_to(ROOT / "tests")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "copy" / name)
    sdist = build("sdist", folder / "copy", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return sdist, build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder / "wheel")


@pytest.fixture(scope="module")
def command(built, tmp_path_factory) -> Path:
    """The command of an environment that the wheel was installed into; what it needs comes from the running one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", built[1]]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Folders that a .pth file names are searched; their own .pth files, such as that of this checkout, are not read.
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin/vidformers"


def run(command: Path, *arguments: object, folder: Path, **environment: str) -> str:
    """Run a program away from this repository, and give what it printed."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [command, *map(str, arguments)],
        cwd=folder,
        env=outside | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def files_of(folder: str, prefix: str) -> set[str]:
    """What git holds of a folder, under another name of it."""
    tracked = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {prefix + name.removeprefix(folder) for name in tracked.splitlines() if (ROOT / name).exists()}


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names >= files_of("src", "vidformers") | files_of("conversion", "vidformers/conversion")
    assert not [name for name in names if not name.startswith("vidformers/") or "test" in name]


def test_sdist_holds_what_it_is_built_from_and_no_test(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= files_of("src", "src") | files_of("conversion", "conversion") | set(SOURCES)
    assert not [name for name in names if name.startswith("tests")]


def test_metadata(built):
    found = metadata(built[1])
    assert found["Version"] == vidformers.__version__
    assert found["Author"] and found["Keywords"] and found["License-File"] == "LICENSE"
    assert {entry.partition(",")[0] for entry in found.get_all("Project-URL")} >= {"Documentation", "Source", "Issues"}
    assert "Typing :: Typed" in found.get_all("Classifier")


def test_links_of_the_readme_work_on_a_package_index(built):
    """There is no repository around the page: links are absolute, and what they name in it is there."""
    repository = next(entry for entry in metadata(built[1]).get_all("Project-URL") if entry.startswith("Source"))
    files = re.compile(re.escape(repository.partition(", ")[2]) + r"/(?:blob|raw)/main/([^#]*)")
    prose = re.sub(r"^```.*?^```$", "", metadata(built[1]).get_payload(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)]*)\)|(?:src|href)=[\"']([^\"']*)", prose)
    assert links
    for link in map("".join, links):
        named = files.match(link)
        assert link.startswith(("https://", "#")), f"{link} leads nowhere on the package index"
        assert not named or (ROOT / named[1]).exists(), f"{link} names a file that is not there"


def test_installed_package_is_its_own(command, tmp_path):
    code = "import vidformers, vidformers.conversion as c; print(vidformers.__file__, c.__file__, sep='\\n')"
    for file in run(command.with_name("python"), "-c", code, folder=tmp_path, **UNREGISTERED).split():
        assert Path(file).is_relative_to(command.parents[1]), f"{file} is not what was installed"


def test_command_tells_its_version(command, tmp_path):
    assert run(command, "--version", folder=tmp_path, **UNREGISTERED).split()[-1] == vidformers.__version__


def test_command_classifies_with_the_model_that_ships(command, tmp_path, shapes):
    scene = shapes.Scene("red", "circle", "moves left")
    clip = shapes.write_clip(tmp_path / "video.mp4", shapes.render(scene, np.random.default_rng(0), 40, 160))
    labels = ["a blue square grows", scene.caption(), "a white cross moves down"]
    printed = run(command, "classify", clip, "--labels", ", ".join(labels), folder=tmp_path)
    assert sorted(labels, key=printed.index)[0] == scene.caption()
