"""`make demo`: the script does its job on a drawn video and on one it is given, and stops where a check fails."""

import importlib.util
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor

from tests.video_files import write_video
from vidformers import VJEPA2ACModel, decode_video


ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "utils/demo"))
    spec = importlib.util.spec_from_file_location("_demo", ROOT / "utils/demo/demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_make_demo_runs_the_script():
    recipe = re.search(r"^demo:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert recipe == "$(BIN)/python utils/demo/demo.py"


@pytest.mark.slow
def test_draws_converts_and_embeds(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SIDE", 128)
    monkeypatch.setattr(demo, "SETTINGS", {**demo.SETTINGS, "crop_size": 112, "frames_per_clip": 4})
    searched = []  # test_searches_a_film does so
    monkeypatch.setattr(demo.film, "search_film", lambda console, out: searched.append(out))
    demo.main(["--out", str(tmp_path)])
    assert searched == [tmp_path]
    output = capsys.readouterr().out
    assert "$ vidformers convert" in output and "✓ tensors of the original files: 107 compared" in output
    assert "the encoder is the file's `target_encoder`" in output
    assert "vidformers.models.vjepa2.modeling_vjepa2.VJEPA2Model" in output and "grid (2, 14, 14)" in output
    frames, metadata = decode_video(tmp_path / "demo.mp4")
    assert frames.shape == (48, 128, 128, 3) and metadata.fps == 12

    figure = np.asarray(Image.open(tmp_path / "features.png"))
    assert figure.shape[1] < 700, "two columns, one for each step"
    colors = figure[100 + 174 : 100 + 174 + 168, 180 : 180 + 168]
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) > 50, "the row of components holds a picture"

    frames, _ = decode_video(tmp_path / "shapes.mp4")
    assert frames.shape == (48, 128, 128, 3)
    best = re.search(r"This is a toy model.*\n\s*(.*?)\s*━", output)[1]
    assert (
        demo.SCENE in demo.shapes.HELD_OUT
        and best == demo.SCENE.caption() == demo.LABELS[0]
        and "a blue cross moves up" in output
    )
    scores = np.asarray(Image.open(tmp_path / "labels.png"))
    assert (scores[80:200] < 250).mean() > 0.5 and (scores == [0x3B, 0x6F, 0xB6]).all(-1).any()

    reconstruction = np.asarray(Image.open(tmp_path / "reconstruction.png")).astype(float)
    original, seen, drawn = (reconstruction[y : y + 128, 180 : 180 + 8 * 134 - 6] for y in (100, 234, 368))
    is_tile = np.arange(original.shape[1]) % 134 < 128
    is_hidden = (seen == 128).all(-1)
    assert 0.7 < is_hidden[:, is_tile].mean() < 0.8 and is_hidden[:, ~is_tile].mean() == 0
    assert np.abs(drawn - original)[~is_hidden].max() <= 1, "what the model sees stays as it is"
    error = np.sqrt(np.square(drawn - original)[is_hidden].mean()) / 255
    stated = float(re.search(r"the error of the hidden pixels is ([\d.]+)", output)[1])
    assert stated == pytest.approx(error, abs=0.002) and error < 0.12

    course = np.asarray(Image.open(tmp_path / "plan.png"))
    assert course.shape[1] > 1100, "six columns, from the start to the goal"
    planned, random = map(int, re.search(r"(\d+)% end nearer.*, (\d+)% after random", output).groups())
    assert planned > 80 and random < 15

    for owner, step in (demo, "classify_shapes"), (demo, "reconstruct_shapes"), (demo.world, "plan_moves"):
        monkeypatch.setattr(owner, step, lambda *arguments: None)
    demo.main(["--out", str(tmp_path)])
    again = np.asarray(Image.open(tmp_path / "features.png"))
    assert np.abs(figure.astype(int) - again).max() <= 2, "a second run replaces the first and gives the same picture"


@pytest.mark.slow
def test_searches_a_film(demo, tmp_path, capsys):
    """Twice, as `make demo` may be run."""
    if find_spec("lancedb") is None:
        pytest.skip("lancedb is not installed, which `make test` installs")
    for _ in range(2):
        demo.film.search_film(demo.console, tmp_path)
        output = capsys.readouterr().out
        assert int(re.search(r"(\d) of 4 sentences found their scene first", output)[1]) >= 3
    assert decode_video(tmp_path / "film.mp4", [0])[1].duration == 60
    assert len(set(demo.film.SCENES)) == 12 and set(demo.film.SCENES) <= set(demo.shapes.HELD_OUT)
    words = {word for scene in demo.film.SCENES for word in (scene.color, scene.shape, scene.motion)}
    assert words == {*demo.shapes.COLORS, *demo.shapes.SHAPES, *demo.shapes.MOTIONS}
    assert "film.mp4#t=" in (tmp_path / "film.html").read_text() and Image.open(tmp_path / "film.png").width > 1000


def test_a_film_is_left_out_without_lancedb(demo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo.film, "find_spec", lambda name: None)
    demo.film.search_film(demo.console, tmp_path)
    assert "pip install 'vidformers[search]'" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_the_world_that_ships_plans_better_than_chance(demo):
    from world import SHAPES_WORLD, shapes_world

    model = VJEPA2ACModel.from_pretrained(SHAPES_WORLD).eval()
    processor, problems = AutoVideoProcessor.from_pretrained(SHAPES_WORLD), shapes_world.draw_problems(8, seed=2)
    assert (shapes_world.distance(problems.starts, problems.goals) >= 0.3).all()
    planned = shapes_world.solve(model, processor, problems, seed=0).states
    random = shapes_world.move_at_random(problems, seed=0)
    assert planned.shape == random.shape == (8, 5, 7)
    assert torch.equal(planned[:, 0], problems.starts) and torch.equal(random[:, 0], problems.starts)
    assert shapes_world.share_near(planned, problems) >= 0.75 > 0.25 >= shapes_world.share_near(random, problems)


def test_takes_a_video(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SETTINGS", {**demo.SETTINGS, "crop_size": 56, "frames_per_clip": 4})
    for owner, step in ((demo, "compare_scenes"), (demo.film, "search_film"), (demo.world, "plan_moves")):
        monkeypatch.setattr(owner, step, lambda *arguments: None)
    demo.main([str(write_video(tmp_path / "mine.mp4")), "--out", str(tmp_path / "out")])
    assert "mine.mp4: 4 of 40 frames in 1.6 s" in capsys.readouterr().out
    assert not (tmp_path / "out" / "demo.mp4").exists() and (tmp_path / "out" / "features.png").exists()


def test_stops_where_the_conversion_fails(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SETTINGS", {**demo.SETTINGS, "hidden_size": 64})
    with pytest.raises(SystemExit) as stop:
        demo.main(["--out", str(tmp_path)])
    assert stop.value.code == 1 and "hidden_size" in capsys.readouterr().err
    assert not (tmp_path / "vjepa2-tiny").exists() and not (tmp_path / "features.png").exists()


def test_unknown_video_is_told_at_once(demo, tmp_path, capsys):
    with pytest.raises(SystemExit):
        demo.main([str(tmp_path / "absent.mp4"), "--out", str(tmp_path / "out")])
    assert "absent.mp4" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_checkpoint_has_metas_layout(demo, tmp_path):
    checkpoint = torch.load(demo.write_checkpoint(tmp_path / "original.pt"), weights_only=True)
    assert {"encoder", "target_encoder", "predictor", "opt", "scaler", "epoch"} <= set(checkpoint)
    assert all(name.startswith("module.backbone.") for name in checkpoint["encoder"])
    assert checkpoint["encoder"]["module.backbone.blocks.0.attn.qkv.weight"].shape == (384, 128)
    name = "module.backbone.blocks.0.attn.qkv.weight"
    assert not torch.equal(checkpoint["encoder"][name], checkpoint["target_encoder"][name])


def test_principal_components(demo):
    values = np.random.default_rng(0).exponential(size=(500, 2)) @ np.array([[3.0, 0, 0], [0, 1.0, 0]])
    components, shares = demo.principal_components(values, count=2)
    assert shares[0] > 0.8 and np.isclose(shares.sum(), 1)
    assert np.corrcoef(components[:, 0], values[:, 0])[0, 1] > 0.99, "the longer tail is positive"
    assert demo.to_gray(components).min() == 0 and demo.to_gray(components).max() == 255
