"""utils/checks/check_repo.py reports every kind of violation, each planted in a small repository."""

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "utils/checks/check_repo.py"
FAMILIES = """
from types import SimpleNamespace

FAMILIES = {
    "one": SimpleNamespace(title="The One"),
    "two": SimpleNamespace(title="The Two"),
}
"""
CLEAN = {
    "CHANGELOG.md": "- The One\n- The Two\n",
    "docs/_toctree.yml": "- local: model_doc/one\n- local: model_doc/two\n",
    "docs/exactness.md": (
        "<!-- differences -->\n\n## The One\n\n| case | Transformers | vidformers |\n| --- | --- | --- |\n"
        "| a size | 1.0 / 0.5 | exact |\n\nMore in [The One](model_doc/one.md#differences-from-transformers).\n\n"
        "## The Two\n\nNone.\n\nMore in [The Two](model_doc/two.md#differences-from-transformers).\n\n<!-- end -->\n"
    ),
    "docs/model_doc/one.md": (
        "# One\n\n## Differences from Transformers\n\nMeasured.\n\n"
        "| case | max | relative | here |\n|---|---|---|---|\n| a size | 1.0 | 0.5 | exact |\n\n## More\n"
    ),
    "docs/model_doc/two.md": "## Differences from Transformers\n\nNone.\n",
    "docs/benchmarks.md": "<!-- measured: one -->\n<!-- measured: two -->\n",
    "utils/tools/__init__.py": "from .part import x\n",
    "conversion/__init__.py": "from ..models.one import modeling_one\n",
    "conversion/__main__.py": "from ..cli import main\n",
    "conversion/maps/__init__.py": "",
    "conversion/originals/__init__.py": "",
    "src/__init__.py": "from .auto import register\n",
    "src/auto.py": "from .families import FAMILIES\n\nAutoModel.register(1, 2)\nimport_module('torchvision')\n",
    "src/cli.py": "from . import conversion\nfrom .conversion import load_original\n",
    "src/families.py": FAMILIES,
    "src/layers/__init__.py": "",
    "src/layers/rope.py": "from .norms import norm\n",
    "src/models/__init__.py": "from ..families import FAMILIES\n",
    "src/video/__init__.py": "import av\nfrom ..lazy import lazy_exports\n",
    "src/models/one/modeling_one.py": (
        "from ...layers import rope\n\ndef from_original():\n    from ...conversion import load_original\n"
    ),
}
for _family in ("one", "two"):
    CLEAN |= {
        f"conversion/maps/{_family}.py": "",
        f"conversion/originals/{_family}.py": 'import_module("src.models.original")\n',
        f"src/models/{_family}/__init__.py": "from .. import exported\n",
        f"tests/families/{_family}.py": "import timm\nfrom vidformers.conversion import core\n",
        f"utils/benchmarks/{_family}.py": "",
    }
# The file to write, its last line, and the rule that the report of that line must name.
PLANTED = {
    "layer imports model": ("src/layers/a.py", "from ..models.one import x", "`layers` must not import `models`"),
    "layer imports root": ("src/layers/a.py", "import vidformers", "`layers` must not import `vidformers`"),
    "video imports model": ("src/video/a.py", "import vidformers.models.one", "`video` must not import `models`"),
    "video imports layer": ("src/video/a.py", "from ..layers import rope", "`video` must not import `layers`"),
    "model imports conversion": (
        "src/models/one/a.py",
        "def load():\n    from ...conversion import core",
        "`models` must not import `conversion`",
    ),
    "model imports auto": ("src/models/one/a.py", "from ...auto import register", "`models` must not import `auto`"),
    "package loads conversion": ("src/__init__.py", "from . import conversion", "must not import `conversion`"),
    "conversion imports cli": ("conversion/core.py", "from ..cli import main", "`conversion` must not import `cli`"),
    "unknown part": ("src/tools.py", "", "no rule says what `tools` may import"),
    "family imports family": (
        "src/models/one/a.py",
        "from ..two.modeling_two import x",
        "family `one` must not import family `two`",
    ),
    "family by import_module": (
        "src/models/one/a.py",
        'importlib.import_module("vidformers.models.two.modeling_two")',
        "family `one` must not import family `two`",
    ),
    "torchvision": ("src/video/a.py", "def f():\n    import torchvision.transforms", "must not import `torchvision`"),
    "timm": ("conversion/core.py", "from timm import create_model", "must not import `timm`"),
    "top-level conversion": ("tests/test_a.py", "from conversion.core import Rule", "`conversion` is no package"),
    "top-level src": ("conversion/maps/one.py", 'import_module("src.models")', "`src` is no package"),
    "top-level utils": ("utils/a.py", "import utils.demo", "`utils` is no package"),
    "register": ("src/models/one/a.py", "AutoModel.register(1, 2)", "only src/auto.py may register"),
    "mapping": ("conversion/core.py", "auto.MODEL_MAPPING.register(1, 2)", "only src/auto.py may register"),
    "key maps": ("src/cli.py", "register_checkpoint_conversion_mapping(1)", "key maps of transformers are global"),
}


def report(root: Path) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def repository(tmp_path):
    for name, text in CLEAN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_clean_repository_passes(repository):
    assert report(repository) == (0, [])


@pytest.mark.parametrize(("file", "code", "rule"), PLANTED.values(), ids=PLANTED.keys())
def test_planted_line_is_reported(repository, file, code, rule):
    path = repository / file
    path.parent.mkdir(exist_ok=True)
    before = path.read_text("utf-8") if path.exists() else ""
    path.write_text(before + code, "utf-8")

    status, (line,) = report(repository)

    assert status == 1
    assert line.startswith(f"{file}:{len((before + code).splitlines()) or 1}: ")
    assert rule in line


@pytest.mark.parametrize(
    "file",
    [
        "conversion/maps/two.py",
        "conversion/originals/two.py",
        "tests/families/two.py",
        "docs/model_doc/two.md",
        "utils/benchmarks/two.py",
    ],
)
def test_missing_file_of_a_family_is_reported(repository, file):
    (repository / file).unlink()
    assert f"src/families.py:6: family `two` lacks {file}" in report(repository)[1]


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        ("CHANGELOG.md", "(The Two) is not in"),
        ("docs/_toctree.yml", "is not in"),
        ("docs/benchmarks.md", "has no block in"),
    ],
)
def test_page_without_a_family_is_reported(repository, page, rule):
    violation = f"src/families.py:6: family `two` {rule} {page}"
    lines = (repository / page).read_text("utf-8").splitlines(keepends=True)
    (repository / page).write_text(lines[0], "utf-8")
    assert report(repository) == (1, [violation])
    (repository / page).unlink()
    assert violation in report(repository)[1]


def test_page_without_differences_is_reported(repository):
    (repository / "docs/model_doc/two.md").write_text("# Two\n", "utf-8")
    assert report(repository) == (
        1,
        [
            "docs/exactness.md:1: is not what the families' pages say: run `python utils/checks/exactness.py`",
            "docs/model_doc/two.md:1: has no section `Differences from Transformers`",
        ],
    )


def test_other_differences_are_reported(repository):
    page = repository / "docs/model_doc/one.md"
    page.write_text(page.read_text("utf-8").replace("0.5", "0.6"), "utf-8")
    status, (line,) = report(repository)
    assert status == 1
    assert line.startswith("docs/exactness.md:1: is not what the families' pages say")


def test_folder_without_init_is_reported(repository):
    (repository / "src/layers/__init__.py").unlink()
    assert report(repository) == (1, ["src/layers:1: folder of modules without `__init__.py`"])
