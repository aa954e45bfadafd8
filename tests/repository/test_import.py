"""What `import vidformers` does and leaves alone, each case in a fresh process, and what the package offers."""

import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from pkgutil import iter_modules

import pytest

import vidformers
from tests.harness.fresh import ALONE, IMPORTS, fake_torchvision, succeed_afresh
from vidformers import compat
from vidformers.families import FAMILIES


ROOT = Path(__file__).parents[2]

TINY_CONFIG = {
    "attn_implementation": "eager",
    "crop_size": 32,
    "frames_per_clip": 4,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "pred_num_mask_tokens": 1,
}
USE_STOCK = """
import torch
generator = torch.Generator().manual_seed(1)
video = torch.randn(1, 4, 3, 32, 32, generator=generator)
def run(model):
    with torch.no_grad():
        return model.eval()(video).last_hidden_state
"""


def python(code, path=None, **environment):
    """Run code in a fresh interpreter and give back the finished process."""
    inherited = {name: value for name, value in os.environ.items() if name != "VIDFORMERS_AUTO"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), *filter(None, [inherited.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def stock_directory(tmp_path_factory):
    """A model directory written by transformers, and what transformers computes with it, without vidformers."""
    folder = tmp_path_factory.mktemp("stock")
    code = f"""
import sys
{USE_STOCK}
torch.manual_seed(0)
model = VJEPA2Model(VJEPA2Config(**{TINY_CONFIG}))
model.save_pretrained(sys.argv[1])
torch.save(run(model), sys.argv[1] + "/expected.pt")
assert "vidformers" not in sys.modules
"""
    succeed_afresh(code, folder, order=ALONE)
    processor = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": {"height": 32, "width": 32}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
def test_import_loads_only_what_registration_needs():
    code = """
heavy = {"av", "ftfy", "torchcodec", "typer", "vidformers.commands.cli", "vidformers.conversion"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
vidformers.load_original
assert "vidformers.conversion" in sys.modules
"""
    succeed_afresh(code)


def test_public_names_load_on_first_use():
    assert set(vidformers.__all__) <= set(dir(vidformers))
    for name in vidformers.__all__:
        assert getattr(vidformers, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'VJEPA3Model'"):
        vidformers.VJEPA3Model  # noqa: B018


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_record_names_what_the_modules_offer(family):
    room = import_module(f"vidformers.models.{family.model_type}")
    offered = {
        name: f".{module.name}"
        for module in iter_modules(room.__path__)
        for name in getattr(import_module(f"{room.__name__}.{module.name}"), "__all__", ())
    }
    assert family.modules == offered
    assert set(room.__all__) == set(offered) <= set(vidformers.__all__)


def public_functions():
    """The public functions of the package, and the methods that its public classes define, by name."""
    for owner in (vidformers, import_module("vidformers.video"), import_module("vidformers.conversion")):
        for name in owner.__all__:
            value = getattr(owner, name)
            if inspect.isfunction(value):
                yield name, value
            for method, function in vars(value).items() if inspect.isclass(value) else ():
                function = getattr(function, "__func__", function)
                is_public = method == "__init__" or not method.startswith("_")
                if is_public and inspect.isfunction(function) and function.__module__ == value.__module__:
                    yield f"{name}.{method}", function


def test_public_functions_are_typed():
    assert (files("vidformers") / "py.typed").is_file()
    untyped = []
    for name, function in public_functions():
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            of_the_user = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if of_the_user and parameter.name not in ("self", "cls") and parameter.annotation is parameter.empty:
                untyped.append(f"{name}: {parameter.name}")
        if signature.return_annotation is signature.empty and not name.endswith(".__init__"):
            untyped.append(f"{name}: what it returns")
    assert untyped == []


def test_changes_in_transformers_are_on_their_page():
    changes = {
        name: " ".join(inspect.getdoc(value).split())
        for name, value in vars(compat).items()
        if inspect.isfunction(value) and "Mends:" in (value.__doc__ or "")
    }
    page = (ROOT / "docs/transformers_changes.md").read_text("utf-8")
    assert set(re.findall(r"\[\[autodoc\]\] compat\.(\w+)", page)) == set(changes)
    called = inspect.getsource(vidformers.register)
    for name, text in changes.items():
        assert all(f"{word}:" in text for word in ("Mends", "Upstream", "Needed until")), name
        assert f"compat.{name}(" in called


def test_registration_can_be_left_to_the_user():
    code = "import sys, vidformers; assert not {'torch', 'transformers'} & set(sys.modules)"
    done = python(code, VIDFORMERS_AUTO="0")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize("torchvision", ["absent", "present"])
def test_registration_changes_what_compat_says(torchvision):
    """Names of transformers' modules and attributes of its Auto classes, before and after."""
    code = """
import os, sys
os.environ["VIDFORMERS_AUTO"] = "0"
import vidformers
assert type(AutoConfig.for_model("vjepa2")).__module__.startswith("transformers.")
for name in vidformers.__all__:
    getattr(vidformers, name)  # loads all that registration loads
from transformers.models.auto import (
    configuration_auto, image_processing_auto, modeling_auto, processing_auto, tokenization_auto, video_processing_auto
)
LAZY = ("AutoVideoProcessor", "VIDEO_PROCESSOR_MAPPING", "VideoProcessorMixin", "VideoMAEFeatureExtractor")

def snapshot():
    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "transformers"}
    holders = "transformers", "transformers.models.auto"
    found = {(holder, name): getattr(modules[holder], name, None) for holder in holders for name in LAZY}
    for module_name, module in modules.items():
        for name, value in vars(module).items():
            found[module_name, name] = value
            is_placeholder = getattr(type(value), "is_dummy", False)
            if isinstance(value, type) and name.startswith("Auto") and not is_placeholder:
                found |= {(name, attribute): of_it for attribute, of_it in vars(value).items()}
    found |= {("processors", name): value for name, value in processing_auto.PROCESSOR_MAPPING_NAMES.items()}
    return found

before = snapshot()
vidformers.register()
vidformers.register()
after = snapshot()
assert type(AutoConfig.for_model("vjepa2")) is vidformers.VJEPA2Config
changed = {key for key in before if before[key] is not after.get(key)}
changed |= {key for key in after.keys() - before.keys() if key[0].startswith("Auto")}
print(sorted(changed))
"""
    autos = "AutoImageProcessor", "AutoProcessor", "AutoTokenizer", "AutoVideoProcessor"
    expected = {
        *((name, "from_pretrained") for name in autos),
        *((name, "_transformers_from_pretrained") for name in autos),
        *(("processors", name) for name in ("pe_video", "videoprism")),
        ("transformers", "VideoMAEFeatureExtractor"),
    }
    if torchvision == "absent":
        names = "AutoVideoProcessor", "VIDEO_PROCESSOR_MAPPING", "VideoProcessorMixin"
        expected |= {("transformers", name) for name in names}
        expected |= {("transformers.models.auto", name) for name in names[:2]}
    printed = succeed_afresh(code, order=ALONE, torchvision=torchvision == "present")
    assert printed.strip().splitlines()[-1] == str(sorted(expected))


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize("torchvision", [False, True], ids=["absent", "present"])
@pytest.mark.parametrize("order", IMPORTS)
def test_auto_classes_give_ours(stock_directory, order, torchvision):
    code = """
earlier = transformers
import sys
import transformers
from transformers.models.auto import AutoVideoProcessor as FromSubmodule
config = AutoConfig.from_pretrained(sys.argv[1])
assert type(config) is vidformers.VJEPA2Config
assert type(AutoModel.from_config(config)) is vidformers.VJEPA2Model
assert type(AutoModel.from_pretrained(sys.argv[1])) is vidformers.VJEPA2Model
assert type(AutoModelForVideoClassification.from_config(config)) is vidformers.VJEPA2ForVideoClassification
for auto in (AutoVideoProcessor, FromSubmodule, transformers.AutoVideoProcessor, earlier.AutoVideoProcessor):
    assert type(auto.from_pretrained(sys.argv[1])) is vidformers.VJEPA2VideoProcessor
for module in (earlier, transformers):
    assert issubclass(vidformers.VJEPA2VideoProcessor, module.VideoProcessorMixin)
    assert module.VIDEO_PROCESSOR_MAPPING[type(config)] == {"torchvision": vidformers.VJEPA2VideoProcessor}
"""
    succeed_afresh(code, stock_directory, order=order, torchvision=torchvision)


@pytest.mark.slow
def test_broken_torchvision_is_explained(tmp_path):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    done = python("import vidformers", path=fake_torchvision(tmp_path, **{"torchvision/__init__.py": broken}))

    assert done.returncode == 1
    *_, message = done.stderr.strip().splitlines()
    assert message.startswith("ImportError: torchvision is installed but cannot be imported")
    assert "operator torchvision::nms does not exist" in message
    assert "pip uninstall torchvision" in message


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
def test_failure_that_is_not_torchvisions_is_passed_on():
    code = """
import sys
sys.modules["transformers.models.auto.modeling_auto"] = None
try:
    import vidformers
except ModuleNotFoundError as error:
    print(error)
"""
    printed = succeed_afresh(code, order=ALONE, torchvision=True)
    assert printed.startswith("import of transformers.models.auto.modeling_auto")


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize("order", IMPORTS)
def test_classes_of_transformers_stay_as_they_are(stock_directory, order):
    code = f"""
import sys
{USE_STOCK}
assert VJEPA2Model.__module__ == "transformers.models.vjepa2.modeling_vjepa2"
assert type(AutoModel.from_config(VJEPA2Config(**{TINY_CONFIG}))) is VJEPA2Model
model, info = VJEPA2Model.from_pretrained(sys.argv[1], attn_implementation="eager", output_loading_info=True)
assert not any(info.values()), info
assert type(model.config) is VJEPA2Config
assert torch.equal(run(model), torch.load(sys.argv[1] + "/expected.pt"))
"""
    succeed_afresh(code, stock_directory, order=order)


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize("order", IMPORTS)
def test_names_give_ours_if_that_is_asked_for(order):
    """Whichever package is imported first, and until that is undone."""
    code = """
from vidformers.families import public_modules
assert transformers.VideoMAEFeatureExtractor is vidformers.VideoMAEImageProcessor
# Without torchvision transformers makes its image processor anew at every request.
shared = [name for name in set(public_modules()) & set(dir(transformers)) if not name.startswith("VideoMAE")]
assert "PeVideoModel" in shared and "VJEPA2VideoProcessor" in shared
theirs = {name: getattr(transformers, name) for name in shared[::2]}
assert not any(theirs[name] is getattr(vidformers, name) for name in theirs)
vidformers.register(names=True)
vidformers.register(names=True)
from transformers import PeVideoModel
assert PeVideoModel is vidformers.PeVideoModel
assert all(getattr(transformers, name) is getattr(vidformers, name) for name in shared)
vidformers.unregister()
vidformers.unregister()
assert all(getattr(transformers, name) is theirs[name] for name in theirs)
assert not any(getattr(transformers, name) is getattr(vidformers, name) for name in shared)
"""
    succeed_afresh(code, order=order)


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
def test_names_by_the_environment():
    code = """
import importlib, os
os.environ["VIDFORMERS_AUTO"] = "names"
importlib.reload(vidformers)
assert transformers.VJEPA2Model is vidformers.VJEPA2Model
"""
    succeed_afresh(code)


def test_pe_core_directories_may_name_the_processor_of_pe_video(tmp_path):
    """So did those that vidformers wrote before `PeCoreVideoProcessor` was there."""
    from transformers import AutoVideoProcessor

    vidformers.PeVideoVideoProcessor(num_frames=5).save_pretrained(tmp_path)
    assert type(AutoVideoProcessor.from_pretrained(tmp_path)) is vidformers.PeVideoVideoProcessor
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pe_core"}))
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(processor) is vidformers.PeCoreVideoProcessor
    assert processor.num_frames == 5
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pe_video"}))
    assert type(AutoVideoProcessor.from_pretrained(tmp_path)) is vidformers.PeVideoVideoProcessor
