"""`utils/docs/pictures.py` draws what the pages show; here with toys that are hardly trained."""

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


ROOT = Path(__file__).parents[2]


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "utils/docs"))
    spec = importlib.util.spec_from_file_location("_pictures", ROOT / "utils/docs/pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for toys in (module.shapes_colors, module.shapes_jepa):
        monkeypatch.setattr(toys, "Settings", partial(toys.Settings, steps=1, batch_size=2))
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["labels", "reconstruction", "videoprism", "pe_core", "pe_video", "vjepa2"])
def test_picture_is_drawn_as_the_page_has_it(pictures, tmp_path, capsys, name):
    pictures.main([name, "--out", str(tmp_path)])
    assert f"{name}.png" in capsys.readouterr().out
    (drawn,) = tmp_path.iterdir()
    with Image.open(drawn) as ours, Image.open(ROOT / "docs/images" / drawn.name) as shown:
        assert ours.size == shown.size
    assert drawn.stat().st_size <= 100_000


def test_every_picture_of_the_script_is_on_a_page(pictures):
    assert {f"{name}.png" for name in pictures.PICTURES} <= {path.name for path in (ROOT / "docs/images").iterdir()}


def test_shares_are_drawn_darker_the_more(pictures, tmp_path):
    tile = np.zeros((8, 8, 3), np.uint8)
    path = pictures.draw_shares(
        "t", "s", {"a": [tile], "b": [tile]}, {"label": (0.1, 0.9)}, tmp_path / "p.png", tile=40
    )
    left, right = (np.asarray(Image.open(path))[-40, 224 + place].mean() for place in (2, 47))
    assert right < 140 < 220 < left


def test_a_picture_fades_where_nothing_fits(pictures):
    picture = np.full((4, 4, 3), 100, np.uint8)
    faded = pictures.fade(picture, np.array([[0.0, 1.0], [0.5, 0.0]]))
    assert (faded[:2, 2:] == 100).all() and faded[0, 0].min() > faded[3, 0].max() > 100
