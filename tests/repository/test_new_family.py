"""utils/new_family.py writes a family that passes `make check` and works, in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
NAME = "shape_net"
FOLDERS = ("src", "conversion", "docs", "tests", "utils")
PAGES = ("Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "setup.py")
# Of the family's tests, what is quick and touches every file that is written.
TESTS = (
    "CitizenTest or ConfigTest or ConversionTest or GoldenTest or test_shapes or save_and_load or hidden_states or "
    "every_module_initial or has_a_gradient or presets_are_buildable or off_size or order_matters or values or "
    "feeds_the_model"
)
SLOW = "every_damage or import_orders"
# Of the tests of all families, those of this one.
ELSEWHERE = "test_families", "repository/test_readme", "repository/test_benchmarks"
REMARK = "\nA page may speak of newfam, NewFam, NEWFAM and New Family.\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A copy of the repository with a family more."""
    copy = tmp_path_factory.mktemp("repository")
    for name in FOLDERS:
        left_out = shutil.ignore_patterns("__pycache__", "goldens", "*.safetensors")
        shutil.copytree(ROOT / name, copy / name, ignore=left_out)
    for name in PAGES:
        shutil.copy(ROOT / name, copy)
    package = copy / "build/vidformers"  # what an installation has
    package.mkdir(parents=True)
    for path in (copy / "src").iterdir():
        (package / path.name).symlink_to(path)
    (package / "conversion").symlink_to(copy / "conversion")
    with (copy / "README.md").open("a", encoding="utf-8") as readme:
        readme.write(REMARK)
    run(copy, sys.executable, "utils/new_family.py", NAME, "--title", "Shape Net")
    return copy


def run(copy: Path, *command: str, status: int = 0) -> str:
    """What a command prints in the copy, which alone is importable."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "build")}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_passes_every_command_of_make_check(written):
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (written / "Makefile").read_text("utf-8"), re.MULTILINE)[1]
    commands = [line.replace("$(BIN)/", "").split() for line in recipe.splitlines()]
    assert len(commands) > 2
    for tool, *arguments in commands:
        how = [sys.executable, *([] if tool == "python" else ["-m", tool])]
        run(written, *how, *arguments)


@pytest.mark.slow
def test_passes_its_own_tests_and_those_of_all_families(written):
    """All but the one that asks for golden cases, which nobody can write but the author."""
    files = [f"tests/{name}.py" for name in ELSEWHERE]
    modules = " or ".join(Path(file).name for file in files)
    own = f"(test_modeling_{NAME} or test_conversion_{NAME} or test_video) and ({TESTS}) and not ({SLOW})"
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider"]
    output = run(written, *command, "-k", f"{own} or ({modules}) and {NAME}", f"tests/{NAME}", *files, status=1)
    failed, passed = (re.findall(rf"^{result} (\S+)", output, re.MULTILINE) for result in ("FAILED", "PASSED"))
    assert failed == [f"tests/{NAME}/test_modeling_{NAME}.py::ShapeNetGoldenTest::test_committed_selection"]
    assert {test.partition("::")[0] for test in passed} >= set(files) and len(passed) > 40


def test_leaves_alone_what_was_there(written):
    """A shared file gets the lines of its list and nothing else."""
    added = {"src/families.py": 1, "CHANGELOG.md": 1, "docs/_toctree.yml": 2}
    changed = {}
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in (*files, *(ROOT / page for page in PAGES)):
        name = path.relative_to(ROOT).as_posix()
        if not (written / name).exists() or "__pycache__" in name or name in ("README.md", "docs/exactness.md"):
            continue
        if path.read_bytes() != (written / name).read_bytes():
            before, after = (text.read_text("utf-8").splitlines() for text in (path, written / name))
            changed[name] = len(after) - len(before)
            assert [line for line in after if line in before] == before
    assert changed == added
    assert (written / "README.md").read_text("utf-8") == (ROOT / "README.md").read_text("utf-8") + REMARK


def test_writes_nothing_twice(written):
    before = (written / "src/families.py").read_text("utf-8")
    output = run(written, sys.executable, "utils/new_family.py", NAME, status=1)
    assert "is there already" in output
    assert (written / "src/families.py").read_text("utf-8") == before


@pytest.mark.parametrize(
    "arguments", [["Shape"], ["shape-net"], ["class"], ["other", "--prefix", "other"], ["other", "--title", 'a "b"']]
)
def test_names_are_checked(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "utils/new_family.py", *arguments, "--root", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "expected" in done.stderr
    assert not list(tmp_path.iterdir())
