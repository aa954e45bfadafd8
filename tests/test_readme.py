"""The Python blocks and the commands of README.md and docs run as they are written.

They run in a folder where the files that they name exist: `video.mp4`, `vitl.pt`, … The names of Hub repositories in
them are those of folders here, `facebook/…`, with tiny models of the same classes; `from_pretrained` prefers a folder
to the Hub. Presets keep their names and get the tiny sizes.
"""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from original_files import encoder_shapes, prefixed, predictor_shapes, probe_tree, random_tensors
from PIL import Image
from typer.testing import CliRunner
from video_files import picture, write_video

import vidformers
from vidformers import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2Model, VJEPA2VideoProcessor, cli
from vidformers.families import FAMILIES


ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 4}
TINY_PREDICTOR = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
CLASSIFIERS = {"vjepa2-vitl-fpc16-256-ssv2": 16, "vjepa2-vitl-fpc32-256-diving48": 32}


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """(line of its fence, text) of every block of a page."""
    text = (ROOT / page).read_text("utf-8")
    return [(text[: found.start()].count("\n") + 1, found[2]) for found in FENCE.finditer(text) if found[1] == language]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder that the documentation speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    hub = folder / "facebook"
    config = VJEPA2Config(**TINY, **TINY_PREDICTOR)
    save(VJEPA2Model(config), hub / "vjepa2-vitl-fpc64-256")
    for name, num_frames in CLASSIFIERS.items():
        labels = {index: f"something {index}" for index in range(174)}
        # As many layers as ViT-L, whose numbers the page gives.
        sizes = {**TINY, "num_hidden_layers": 24, "id2label": labels, "frames_per_clip": num_frames}
        save(VJEPA2ForVideoClassification(VJEPA2Config(**sizes)), hub / name)
    (folder / "videos").mkdir()
    for name in ("video.mp4", "videos/one.mp4", "videos/two.mp4"):
        write_video(folder / name, num_frames=70)
    Image.fromarray(picture(0, 300, 400)).save(folder / "image.jpg")
    state = {
        "target_encoder": random_tensors(encoder_shapes(patch=16), 1),
        "encoder": random_tensors(encoder_shapes(patch=16), 2),
        "predictor": random_tensors(predictor_shapes(depth=1), 3),
    }
    for name in ("vitl.pt", "mine.pt"):
        heads = 16 if name == "mine.pt" else 2
        tensors = {key: prefixed("module.backbone.", value) for key, value in state.items()}
        torch.save(tensors if heads == 2 else wide_checkpoint(), folder / name)
    torch.save(probe_tree(heads={"linear": 174}), folder / "ssv2-vitl-16x2x3.pt")
    (folder / "ssv2.txt").write_text("\n".join(f"doing {index}" for index in range(174)))
    return folder
