"""`vidformers search`: what it finds in a film whose scenes are known, and what it says where it cannot."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import lancedb
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vidformers
from tests.inference.directories import directory_of
from tests.video_files import truncate, write_video
from vidformers.commands import console
from vidformers.commands.classify import TOY_MODEL
from vidformers.commands.cli import app
from vidformers.commands.embed import embed_into_table
from vidformers.commands.search_results import HEAD, ROW
from vidformers.inference import search as module
from vidformers.inference.embedder import Embedding
from vidformers.inference.search import find_spans
from vidformers.inference.store import FileState, Store
from vidformers.inference.windows import Windows


pytestmark = pytest.mark.ecosystem

SECONDS, RATE, SIDE = 4, 8, 64
# Scenes that share words with each other, so that a wrong one is near.
WORDS = [
    "red circle moves up",
    "red circle grows",
    "blue circle moves up",
    "red cross moves up",
    "white square shrinks",
]


@pytest.fixture(scope="module")
def library(tmp_path_factory, shapes) -> Path:
    """Two films: all scenes, and the first two the other way about. Beside them a clip and a picture of the third."""
    folder = tmp_path_factory.mktemp("library")
    rng = np.random.default_rng(0)
    scenes = [shapes.Scene(*words.split(" ", 2)) for words in WORDS]
    clips = [shapes.render(scene, rng, SECONDS * RATE, SIDE) for scene in scenes]
    (folder / "videos").mkdir()
    shapes.write_clip(folder / "videos/film.mp4", np.concatenate(clips), RATE)
    shapes.write_clip(folder / "videos/other.mp4", np.concatenate([clips[1], clips[0]]), RATE)
    shapes.write_clip(folder / "clip.mp4", clips[2], RATE)
    Image.fromarray(clips[4][SECONDS * RATE // 2]).save(folder / "picture.png")
    embed_into_table([folder / "videos"], TOY_MODEL, folder / "library.lance", windows=Windows(SECONDS, 1.0))
    return folder


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setattr(console.output, "width", 300)


def search(library: Path, *arguments, table: str = "library.lance", expect: int = 0) -> str:
    command = ["search", library / table, *arguments]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


def found(library: Path, *arguments) -> list[dict]:
    return [json.loads(line) for line in search(library, *arguments, "--json").splitlines() if line.startswith("{")]


def shows(span: dict, scene: int) -> bool:
    """Whether a span of the film is about the seconds of a scene."""
    start, end = span["start_seconds"], span["end_seconds"]
    shared = min(end, SECONDS * (scene + 1)) - max(start, SECONDS * scene)
    return Path(span["video"]).name == "film.mp4" and shared / (end - start) > 0.6 and shared > 0.9 * SECONDS


@pytest.mark.parametrize("scene", range(len(WORDS)))
def test_by_words(scene, library):
    spans = found(library, f"a {WORDS[scene]}", "--top", "2", "--where", "video LIKE '%film.mp4'")
    assert shows(spans[0], scene) and not shows(spans[1], scene) and spans[0]["score"] > spans[1]["score"]
    numbers = spans[0]["windows"]
    assert (spans[0]["start_seconds"], spans[0]["end_seconds"]) == (numbers[0], numbers[-1] + SECONDS)


def test_by_video(library):
    (best,) = found(library, "--video", library / "clip.mp4", "--top", "1")
    assert shows(best, 2) and best["score"] > 0.99


def test_by_picture(library, tmp_path):
    """Of any kind, and turned as its camera says."""
    picture, exif = Image.open(library / "picture.png"), Image.Exif()
    exif[0x0112] = 6  # shown a quarter turned clockwise
    picture.rotate(90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    picture.quantize(256).save(tmp_path / "palette.gif")
    for path in (library / "picture.png", tmp_path / "turned.jpg", tmp_path / "palette.gif"):
        (best,) = found(library, "--image", path, "--top", "1")
        assert shows(best, 4)
    seen = [
        found(library, "--image", path, "--top", "1")[0]["score"]
        for path in (library / "picture.png", tmp_path / "turned.jpg")
    ]
    assert seen[0] == pytest.approx(seen[1], abs=0.02)


def test_every_video_has_spans_of_its_own(library):
    spans = found(library, "a red circle moves up", "--top", "2")
    assert {Path(span["video"]).name for span in spans} == {"film.mp4", "other.mp4"}
    other = next(span for span in spans if span["video"].endswith("other.mp4"))
    assert other["start_seconds"] >= SECONDS - 1


def test_where(library):
    spans = found(library, "a red circle moves up", "--where", "start_seconds >= 8")
    assert spans and all(span["start_seconds"] >= 8 for span in spans)
    assert "No row of the table fulfills" in search(library, "a circle", "--where", "video = 'no''ne'")
    assert found(library, "a circle", "--where", "video = 'none'") == []


def test_the_words_are_put_into_several_sentences(library):
    searcher = vidformers.Searcher(library / "library.lance")
    embedder = vidformers.VideoEmbedder.from_pretrained(TOY_MODEL, device="cpu")
    texts = ["a red cross", "a video of a red cross."]
    expected = torch.nn.functional.normalize(embedder.encode_text(texts).mean(0), dim=0)
    best = searcher.search("a red cross.", top=1)[0]
    rows = torch.stack([row.embedding for row in searcher.store.rows_of(best.video)])
    assert best.score == pytest.approx((rows @ expected).max().item(), abs=1e-5)


def test_a_terminal_gets_a_table_and_the_files_are_written(library, tmp_path):
    sheet, page = tmp_path / "sheet.png", tmp_path / "page.html"
    output = search(library, "a red cross moves up", "--top", 3, "--sheet", sheet, "--html", page)
    assert re.search(r"1 +0\.\d{3} +0:\d\d\.\d +0:\d\d\.\d +/.*film\.mp4", output) and f"Wrote {page}" in output
    text = page.read_text()
    assert "“a red cross moves up”" in text and text.count("data:image/jpeg") == 9 and "film.mp4#t=" in text
    assert Image.open(sheet).height == HEAD + 3 * ROW
    output = search(library, "a red cross", "--html", page, expect=1)
    assert "page.html: exists already" in output and page.read_text() == text


def test_a_video_that_went_away_is_still_found(library, tmp_path):
    shutil.copytree(library / "videos", tmp_path / "videos")
    embed_into_table([tmp_path / "videos"], TOY_MODEL, tmp_path / "library.lance", windows=Windows(SECONDS, 2.0))
    (tmp_path / "videos/film.mp4").unlink()
    output = search(tmp_path, "a red cross moves up", "--html", tmp_path / "page.html")
    assert "film.mp4: there is no such file any more" in output
    assert "This file cannot be read." in (tmp_path / "page.html").read_text()


# ------------------------------------------------------------------------------------------------------------ an index


@pytest.fixture
def store(tmp_path) -> Store:
    """A table of a thousand random vectors."""
    store, state = Store(tmp_path / "random.lance", {"model": "m", "revision": "r"}), FileState(1, 1)
    vectors = torch.randn(1000, 32, generator=torch.Generator().manual_seed(0))
    rows = [
        Embedding(f"video {n // 100}", each, None, (n,), None, n % 100, 100, 2.0 * n, 2 * n + 0.5, 2 * n + 1.0)
        for n, each in enumerate(vectors)
    ]
    store.add(rows, dict.fromkeys({row.name for row in rows}, state))
    return store


def test_an_index_finds_what_an_exact_search_finds(store):
    """With all partitions looked at, a hundred rows are chosen among ten times as many: all."""
    query = torch.randn(32, generator=torch.Generator().manual_seed(1))
    rows = torch.stack([row.embedding for name in store.videos() for row in store.rows_of(name)])
    scores = torch.nn.functional.cosine_similarity(rows, query[None]).sort(descending=True).values[:100]
    exact = store.nearest(query, 100)
    torch.testing.assert_close(torch.tensor([hit.score for hit in exact]), scores, atol=1e-5, rtol=0)
    store.make_index(num_partitions=3)
    assert store.has_index() and store.nearest(query, 10) == exact[:10], "not asked for, it is not used"
    assert store.nearest(query, 100, index=True, partitions=3) == exact
    some = store.nearest(query, 100, index=True, partitions=1)
    assert 10 < len(set(some) & set(exact)) < 100, "one of three parts holds not all"
    where = "video = 'video 3' AND start_seconds > 640"
    assert store.nearest(query, 5, where, index=True, partitions=3) == store.nearest(query, 5, where) != exact[:5]


def test_when_an_index_is_used(store, monkeypatch):
    query, used, nearest = torch.ones(32), [], Store.nearest
    monkeypatch.setattr(
        Store, "nearest", lambda *args, index, **kwargs: used.append(index) or nearest(*args, **kwargs)
    )
    find_spans(store, query)
    assert used == [False] and not store.has_index()
    monkeypatch.setattr(module, "INDEX_FROM_ROWS", 1000)
    find_spans(store, query, index=False)
    assert used == [False, False] and not store.has_index()
    find_spans(store, query)
    assert used[2:] == [True] and store.has_index()


def test_rows_after_the_index_are_found(store):
    store.make_index()
    query = torch.zeros(32)
    query[0] = 1.0
    store.add([Embedding("new", query, None, (0,), None, 0, 1, 0.0, 0.5, 1.0)], {"new": FileState(1, 1)})
    for _ in range(2):
        (span,) = find_spans(store, query, top=1, index=True)
        assert span.video == "new" and span.score == pytest.approx(1)
        store.clean()


def test_a_table_too_small_for_an_index(library):
    output = search(library, "a circle", "--index", expect=1)
    assert "an index takes 256 rows or more, and there are" in output
    assert len(found(library, "a circle", "--exact")) == 5


def test_spans_are_looked_for_until_there_are_enough(tmp_path):
    """Two hundred windows of one long scene come before that of the next one."""
    store, vectors = Store(tmp_path / "long.lance", {"model": "m", "revision": "r"}), torch.eye(4)
    rows = [
        Embedding("long", vectors[0] + 0.001 * n * vectors[1], None, (n,), None, n, 200, n, n + 2.0, n + 4.0)
        for n in range(200)
    ]
    rows.append(Embedding("short", vectors[0] + vectors[1], None, (0,), None, 0, 1, 0.0, 0.5, 1.0))
    store.add(rows, {"long": FileState(1, 1), "short": FileState(1, 1)})
    spans = find_spans(store, vectors[0], top=2)
    assert [(span.video, span.start_seconds, span.end_seconds) for span in spans] == [
        ("long", 0, 203),
        ("short", 0, 1),
    ]
    assert len(find_spans(store, vectors[0], top=50)) == 2


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def wordless(tmp_path_factory) -> Path:
    """A table of a model without texts, and of a directory that is there."""
    folder = tmp_path_factory.mktemp("wordless")
    directory_of("VJEPA2Model", folder / "model")
    write_video(folder / "one.mp4", num_frames=30)
    embed_into_table(
        [folder / "one.mp4"], folder / "model", folder / "library.lance", windows=Windows(0.4), num_frames=4
    )
    return folder


def test_a_table_without_texts(wordless):
    output = search(wordless, "a dog", expect=1)
    assert f"features by {wordless / 'model'} that no text compares with. Search by a video or an image" in output
    (best,) = found(wordless, "--video", wordless / "one.mp4", "--top", "1")
    assert best["video"] == str(wordless / "one.mp4")
    Image.new("RGB", (40, 40)).save(wordless / "black.png")
    assert len(found(wordless, "--image", wordless / "black.png", "--top", "1")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Expected one query: words, a video or an image."),
        (["a", "--video", "clip.mp4"], "Expected one query"),
        ([" "], "Expected words to search for, got none."),
        (["--video", "absent.mp4"], "absent.mp4"),
        (["--video", "cut.mp4"], "Cannot decode"),
        # Before a model is loaded.
        (["--video", "absent.mp4", "--model", "absent"], "absent.mp4"),
        (["a", "--where", "window", "--model", "absent"], "does not return a boolean"),
        (["--image", "clip.mp4"], "clip.mp4: it is no image that can be read"),
        (["--image", "absent.png"], "absent.png"),
        (["--image", "gray.png"], "it has the mode I;16, not one of 8 bits a channel"),
        (
            ["a", "--where", "loudness > 3"],
            "cannot choose rows by 'loudness > 3' (Invalid input, Schema error: No field",
        ),
        (["a", "--where", "video ="], "Write a condition on the columns key, video, window"),
        (["a", "--where", "window"], "does not return a boolean"),
        (["a", "--sheet", "sheet.doc"], "the name of a sheet must end in .png"),
        (["a", "--html", "absent/page.html"], "there is no folder"),
        (["a", "--model", "absent"], "absent: there is no such directory"),
    ],
)
def test_bad_queries(arguments, message, library, monkeypatch):
    monkeypatch.chdir(library)
    if not Path("cut.mp4").exists():
        truncate(library / "clip.mp4", 0.3)
        Path("cut_clip.mp4").rename("cut.mp4")
        Image.fromarray(np.full((8, 8), 300, np.uint16)).save("gray.png")
    assert message in search(library, *arguments, expect=1)


def test_bad_tables(library, tmp_path):
    assert "absent.lance: there is no such table" in search(tmp_path, "a", table="absent.lance", expect=1)
    assert "the name of a table must end in .lance" in search(library, "a", table="videos", expect=1)
    lancedb.connect(tmp_path).create_table("other", pa.table({"id": [1]}))
    assert "is a table of something else, with the columns id" in search(tmp_path, "a", table="other.lance", expect=1)
    empty = Store(tmp_path / "empty.lance", Store(library / "library.lance").settings)
    empty.add(Store(library / "library.lance").rows_of((library / "videos/film.mp4").as_posix())[:1], AnyState())
    empty.table.delete("true")
    assert "empty.lance: holds no rows yet. Add some: vidformers embed" in search(
        tmp_path, "a", table="empty.lance", expect=1
    )


class AnyState(dict):
    def __missing__(self, name):
        return FileState(1, 1)


def test_a_model_that_moved_or_changed(library, tmp_path):
    for name in ("moved", "changed"):
        shutil.copytree(TOY_MODEL, tmp_path / name)
    changed = vidformers.VideoPrismClipModel.from_pretrained(TOY_MODEL)
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    changed.save_pretrained(tmp_path / "changed")
    assert found(library, "a red cross", "--model", tmp_path / "moved") == found(library, "a red cross")
    output = search(library, "a red cross", "--model", tmp_path / "changed", expect=1)
    assert "its rows are made with revision" in output and f"of {tmp_path / 'changed'}" in output


def test_the_revision_of_the_hub_that_made_the_rows_is_loaded(library, tmp_path, monkeypatch):
    """Of two revisions in the Hub's cache, the newer one has other weights."""
    cache = tmp_path / "models--me--toy"
    old, new = "a" * 40, "b" * 40
    for revision in (old, new):
        shutil.copytree(TOY_MODEL, cache / "snapshots" / revision)
    changed = vidformers.VideoPrismClipModel.from_pretrained(TOY_MODEL)
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    changed.save_pretrained(cache / "snapshots" / new)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(old)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    embed_into_table([library / "videos"], "me/toy", tmp_path / "library.lance", windows=Windows(SECONDS, 1.0))
    assert Store(tmp_path / "library.lance").settings["revision"] == old
    (cache / "refs/main").write_text(new)
    assert found(tmp_path, "a red cross moves up") == found(library, "a red cross moves up")
