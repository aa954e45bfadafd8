"""utils/checks/check_repo.py reports every kind of violation, each planted in a small repository."""

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "utils/checks/check_repo.py"
FAMILIES = """
from importlib import import_module

ROOMS = (
    "one",
    "two",
    "three",
)
FAMILIES = {name: import_module(f".models.{name}.record", __package__).FAMILY for name in ROOMS}
"""
TITLES = {"one": "The One", "two": "The Two", "three": "The Third"}
BASED_ON = {"one": (), "two": (), "three": ("two",)}
DIFFERENCES = (
    "## The One\n\n| case | why | Transformers | vidformers |\n| --- | --- | --- | --- |\n"
    "| a size | the config's grid | 1.0 / 0.5 | exact |\n\n"
    "More in [The One](model_doc/one.md#differences-from-transformers).\n\n"
    "## The Two\n\nNone.\n\nMore in [The Two](model_doc/two.md#differences-from-transformers).\n\n"
    "## The Third\n\nNone.\n\nMore in [The Third](model_doc/three.md#differences-from-transformers).\n\n"
)
CLEAN = {
    "CHANGELOG.md": "- The One\n- The Third\n- The Two\n",
    "docs/_toctree.yml": "- local: model_doc/one\n- local: model_doc/three\n- local: model_doc/two\n",
    "docs/exactness.md": f"<!-- differences -->\n\n{DIFFERENCES}<!-- end -->\n",
    "utils/tools/__init__.py": "from .part import x\n",
    "conversion/__init__.py": "from vidformers.models.records import Family\nfrom .ops import Copy\n",
    "conversion/__main__.py": "from vidformers.commands.cli import main\n",
    "src/__init__.py": "from .auto import register\n",
    "src/auto.py": "from . import compat\nfrom .families import FAMILIES\n\nAutoModel.register(1, 2)\n",
    "src/compat.py": "import_module('torchvision')\n",
    "src/commands/__init__.py": "",
    "src/commands/cli.py": "from vidformers.conversion import load\nfrom .embed import x\n",
    "src/commands/embed.py": "from vidformers.inference.clips import read_clip\n",
    "src/inference/__init__.py": "from vidformers.models.pretrained import VideoPreTrainedModel\n",
    "src/families.py": FAMILIES,
    "src/files.py": "",
    "src/layers/__init__.py": "",
    "src/layers/rope.py": "from .norms import norm\n",
    "src/models/__init__.py": "",
    "src/models/records.py": "from types import SimpleNamespace as Family\n",
    "src/video/__init__.py": "import av\nfrom vidformers.lazy import lazy_exports\n",
    "src/models/one/modeling_one.py": (
        "from vidformers.layers import rope\n\n"
        "def from_original():\n    from vidformers.conversion import load_original\n"
    ),
    "src/models/three/modeling_three.py": "from ..two.modeling_two import x\n",
    "conversion/three/rules.py": "from vidformers.models.two import x\nfrom ..two.checkpoint import y\n",
}
for _name, _title in TITLES.items():
    CLEAN |= {
        f"conversion/{_name}/__init__.py": "",
        f"conversion/{_name}/checkpoint.py": "from ..ops import Copy\nfrom vidformers.families import FAMILIES\n",
        f"conversion/{_name}/original.py": 'import_module("src.models.original")\n',
        f"docs/model_doc/{_name}.md": f"# {_title}\n\n## Differences from Transformers\n\nNone.\n",
        f"src/models/{_name}/__init__.py": "from vidformers.lazy import lazy_exports\nfrom .record import FAMILY\n",
        f"src/models/{_name}/presets.py": "",
        f"src/models/{_name}/record.py": (
            f"from ..records import Family\n\nFAMILY = Family(title={_title!r}, based_on={BASED_ON[_name]})\n"
        ),
        f"tests/{_name}/spec.py": "import timm\nfrom vidformers.conversion import ops\n",
        f"utils/benchmarks/{_name}.py": "",
    }
CLEAN["docs/model_doc/one.md"] = (
    "# One\n\n## Differences from Transformers\n\nMeasured.\n\n"
    "| case | why | max | relative | here |\n|---|---|---|---|---|\n"
    "| a size | the config's grid | 1.0 | 0.5 | exact |\n\n## More\n"
)
# For `load_families`, what lies in `src/lazy.py`.
CLEAN["src/lazy.py"] = "lazy_exports = None\n"
# The file to write, its last line, and the rule that the report of that line must name.
PLANTED = {
    "layer imports model": (
        "src/layers/a.py",
        "from vidformers.models.records import x",
        "`layers` must not import `models`",
    ),
    "layer imports root": ("src/layers/a.py", "import vidformers", "`layers` must not import `vidformers`"),
    "video imports model": (
        "src/video/a.py",
        "import vidformers.models.pretrained",
        "`video` must not import `models`",
    ),
    "video imports layer": ("src/video/a.py", "from vidformers.layers import x", "`video` must not import `layers`"),
    "model imports conversion": (
        "src/models/one/a.py",
        "def load():\n    from vidformers.conversion import ops",
        "`models` must not import `conversion`",
    ),
    "model imports auto": (
        "src/models/one/a.py",
        "from vidformers.auto import register",
        "`models` must not import `auto`",
    ),
    "model imports inference": (
        "src/models/one/a.py",
        'import_module("vidformers.inference.clips")',
        "`models` must not import `inference`",
    ),
    "inference imports command": (
        "src/inference/a.py",
        "from vidformers.commands.embed import x",
        "`inference` must not import `commands`",
    ),
    "inference imports conversion": (
        "src/inference/a.py",
        "from vidformers.conversion import load",
        "`inference` must not import `conversion`",
    ),
    "training imports inference": (
        "src/training/__init__.py",
        "from vidformers.inference import clips",
        "`training` must not import `inference`",
    ),
    "package loads conversion": ("src/__init__.py", "from . import conversion", "must not import `conversion`"),
    "files import video": ("src/files.py", "from .video import x", "`files` must not import `video`"),
    "conversion imports command": (
        "conversion/ops.py",
        "from vidformers.commands.cli import main",
        "`conversion` must not import `commands`",
    ),
    "unknown part": ("src/tools.py", "", "no rule says what `tools` may import"),
    "conversion leaves its floor": (
        "conversion/ops.py",
        "from ..models.records import Family",
        "leaves `vidformers.conversion`: write `vidformers.models.records`",
    ),
    "room of conversion leaves its floor": (
        "conversion/one/a.py",
        "from ...families import FAMILIES",
        "leaves `vidformers.conversion`: write `vidformers.families`",
    ),
    "command leaves its floor": (
        "src/commands/a.py",
        "from ..inference.clips import read_clip",
        "leaves `vidformers.commands`: write `vidformers.inference.clips`",
    ),
    "room of a family leaves its floor": (
        "src/models/one/a.py",
        "from ...layers.rope import rotary",
        "leaves `vidformers.models`: write `vidformers.layers.rope`",
    ),
    "package of a floor leaves it": (
        "src/video/__init__.py",
        "from ..lazy import lazy_exports",
        "leaves `vidformers.video`: write `vidformers.lazy`",
    ),
    "leaves by import_module": (
        "src/inference/a.py",
        'import_module("..models.pretrained", __package__)',
        "leaves `vidformers.inference`",
    ),
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
    "family converts family": (
        "conversion/one/a.py",
        "from ..two import checkpoint",
        "family `one` must not import family `two`",
    ),
    "foundation imports what is built on it": (
        "src/models/two/a.py",
        "from ..three import x",
        "family `two` must not import family `three`",
    ),
    "shared code imports family": (
        "conversion/ops.py",
        "from .one.checkpoint import FORMS",
        "what families share must not import family `one`",
    ),
    "command imports family": (
        "src/commands/a.py",
        "from vidformers.models.one.modeling_one import x",
        "what families share must not import family `one`",
    ),
    "torchvision": ("src/video/a.py", "def f():\n    import torchvision.transforms", "must not import `torchvision`"),
    "timm": ("conversion/ops.py", "from timm import create_model", "must not import `timm`"),
    "top-level conversion": ("tests/test_a.py", "from conversion.ops import Copy", "`conversion` is no package"),
    "top-level src": ("conversion/one/a.py", 'import_module("src.models")', "`src` is no package"),
    "top-level utils": ("utils/a.py", "import utils.demo", "`utils` is no package"),
    "register": ("src/models/one/a.py", "AutoModel.register(1, 2)", "only src/auto.py may register"),
    "mapping": ("conversion/ops.py", "auto.MODEL_MAPPING.register(1, 2)", "only src/auto.py may register"),
    "key maps": (
        "src/commands/a.py",
        "register_checkpoint_conversion_mapping(1)",
        "key maps of transformers are global",
    ),
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
        "conversion/two/checkpoint.py",
        "conversion/two/original.py",
        "docs/model_doc/two.md",
        "src/models/two/presets.py",
        "tests/two/spec.py",
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
    ],
)
def test_page_without_a_family_is_reported(repository, page, rule):
    violation = f"src/families.py:6: family `two` {rule} {page}"
    lines = (repository / page).read_text("utf-8").splitlines(keepends=True)
    (repository / page).write_text("".join(lines[:2]), "utf-8")
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


def test_room_of_no_family_is_reported(repository):
    listing = repository / "src/families.py"
    listing.write_text(listing.read_text("utf-8").replace('    "one",\n', ""), "utf-8")
    unlisted = "a room of no family that src/families.py lists"
    found = report(repository)[1]
    assert {f"{name}:1: {unlisted}" for name in ("conversion/one/__init__.py", "src/models/one/__init__.py")} <= set(
        found
    )


def test_folder_without_init_is_reported(repository):
    (repository / "src/layers/__init__.py").unlink()
    assert report(repository) == (1, ["src/layers:1: folder of modules without `__init__.py`"])
