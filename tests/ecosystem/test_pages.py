"""Every block of docs/integrations.md runs here: all that they need is installed."""

import re
from pathlib import Path

import pytest

from tests.repository import test_readme
from tests.repository.test_readme import blocks, check_shape, folder, named_files, run_commands, run_python
from vidformers.inference.store import Store

from .local_task import clips_task
from .test_adapters import ATTENTION


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow, pytest.mark.xdist_group("ray")]

PAGE = "docs/integrations.md"
TEXT = (test_readme.ROOT / PAGE).read_text("utf-8")

__all__ = ["folder", "named_files"]  # fixtures


def test_nothing_is_left_out():
    needed = set(re.findall(r"<!-- needs: (\w+) -->", TEXT))
    assert [name for name in needed if test_readme.find_spec(name) is None] == []


def test_blocks_run(folder, cluster, monkeypatch):
    """One after the other, as a reader runs them; mteb's task is made of local files, and Ray has been started."""
    import mteb

    monkeypatch.setattr(mteb, "get_tasks", lambda tasks: [clips_task(sorted(Path("videos").iterdir()))])
    namespace = {"check_shape": check_shape, "__name__": "page"}
    for line, language, text in blocks(PAGE):
        if language == "python":
            run_python(text, PAGE, line, namespace)
        else:
            run_commands(text)
    assert "accuracy" in namespace["results"].task_results[0].scores["test"][0]
    assert len(namespace["closest"]) == 2 and len(namespace["features"]) == 2


def test_large_collections(folder, cluster):
    """The blocks of docs/scale.md."""
    import pyarrow.parquet

    page, namespace = "docs/scale.md", {"check_shape": check_shape, "__name__": "page"}
    languages = []
    for line, language, text in blocks(page):
        languages.append(language)
        if language == "python":
            run_python(text, page, line, namespace)
        elif text.startswith("pip"):
            run_commands(text)
    assert languages == ["bash", "bash", "python", "python"]
    expected = len(namespace["features"])
    assert expected == pyarrow.parquet.read_table("features").num_rows == Store("library.lance").count() > 0


def test_names_of_attention():
    """The table of PEFT names what the tests adapt."""
    rows = dict(re.findall(r"^\| ([\w\- ]+) \| (.*`.*) \|$", TEXT, re.MULTILINE))
    titles = {"vjepa2": "V-JEPA 2", "videoprism": "VideoPrism", "videomae": "VideoMAE"}
    titles |= {"pe_video": "PE Video", "pe_core": "PE core"}
    found = {name: sorted(re.findall(r"`(\w+)`", rows[title])) for name, title in titles.items()}
    assert found == {name: sorted(names) for name, names in ATTENTION.items()}
