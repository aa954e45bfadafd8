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
# Of the shared tests, what is quick and touches every file that is written.
TESTS = (
    "TestConfig or test_shapes or test_save_and_load or test_hidden_states or test_every_module_initialises or "
    "test_every_parameter_has_a_gradient or test_presets_are_buildable or test_off_size or test_order_matters or "
    "test_values or test_feeds_the_model or TestConversion or test_every_class_has or test_every_case_is_known or "
    "test_blocks_run or test_page_has or test_links or test_script_of_a_family"
)
FILES = ("tests/test_families.py", "tests/test_readme.py", "tests/test_benchmarks.py")
REMARK = "\nA page may speak of newfam, NewFam, NEWFAM and New Family.\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A copy of the repository with a family more."""
    copy = tmp_path_factory.mktemp("repository")
    for name in ("src", "conversion", "docs", "tests", "utils"):
        left_out = shutil.ignore_patterns("__pycache__", "goldens", "*.safetensors")
        shutil.copytree(ROOT / name, copy / name, ignore=left_out)
    for name in ("Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "setup.py"):
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


def test_passes_every_command_of_make_check(written):
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (written / "Makefile").read_text("utf-8"), re.MULTILINE)[1]
    commands = [line.replace("$(BIN)/", "").split() for line in recipe.splitlines()]
    assert len(commands) > 2
    for tool, *arguments in commands:
        how = [sys.executable, *([] if tool == "python" else ["-m", tool])]
        run(written, *how, *arguments)


def test_passes_the_shared_tests(written):
    """All but the one that asks for golden cases, which nobody can write but the author."""
    quiet = ("-q", "-p", "no:cacheprovider")
    output = run(written, sys.executable, "-m", "pytest", *quiet, *FILES, "-k", f"{NAME} and ({TESTS})", status=1)
    failed = re.findall(r"^FAILED (\S+)", output, re.MULTILINE)
    assert failed == [f"tests/test_families.py::TestParity::test_every_case_is_known[{NAME}]"]
    passed = int(re.search(r"(\d+) passed", output)[1])
    assert passed > 25


def test_leaves_alone_what_was_there(written):
    assert (written / "README.md").read_text("utf-8").endswith(REMARK)
    for page in ("CHANGELOG.md", "docs/index.md", "docs/benchmarks.md", "docs/_toctree.yml", "src/families.py"):
        before, after = ((root / page).read_text("utf-8").splitlines() for root in (ROOT, written))
        lost = [line for line in before if line not in after]
        assert len(lost) <= (page == "src/families.py"), lost  # the line that lists the records


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
