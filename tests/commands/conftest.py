"""Fixtures of the tests of `vidformers probe`."""

from pathlib import Path

import pytest
import torch

from tests.commands.probes import TINY
from vidformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor
from vidformers.commands import probe_card


@pytest.fixture
def no_drawings(request, monkeypatch):
    """Cards without pictures, which take longer than all else, but in the test that looks at them."""
    if "card" not in request.node.name:
        monkeypatch.setattr(probe_card, "draw_curve", lambda *given: None)
        monkeypatch.setattr(probe_card, "draw_confusion", lambda *given: None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A V-JEPA 2 with random weights."""
    folder = tmp_path_factory.mktemp("vjepa2")
    torch.manual_seed(0)
    VJEPA2Model(VJEPA2Config(**TINY, initializer_range=0.2)).save_pretrained(folder)
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(folder)
    return folder
