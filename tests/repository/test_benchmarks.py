"""The benchmarks' common parts: records in turns, their tables, and the page that they are written into."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from vidformers.families import FAMILIES


FOLDER = Path(__file__).parents[2] / "utils/benchmarks"
sys.path.insert(0, str(FOLDER))

import beside_others  # noqa: E402
import run as runner  # noqa: E402
import side_by_side  # noqa: E402
from side_by_side import Comparison, Options, Table  # noqa: E402


PAGE = (FOLDER.parents[1] / "docs/benchmarks.md").read_text("utf-8")


def test_every_block_of_the_page_has_a_script():
    assert set(runner.blocks(PAGE)) <= set(runner.scripts()) and set(FAMILIES) <= set(runner.scripts())


def test_page_gets_a_section_for_a_new_script():
    page = runner.filled("# Page\n", "newfam", "A table.\n")
    assert page == "# Page\n\n## newfam\n\n<!-- measured: newfam -->\nA table.\n<!-- end -->\n"


def test_rounds_start_with_another_call_each():
    calls = []
    seconds = side_by_side.interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=4)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert [len(values) for values in seconds.values()] == [4, 4, 4]


def test_ratios_are_those_of_the_counterparts(monkeypatch):
    seconds = {"transformers": 4.0, "vidformers": 2.0, "vidformers, half": 1.0, "transformers, compiled": 3.0}
    seconds |= {"vidformers, compiled": 1.5, "": 1.0}

    def interleave(calls, rounds, device):
        assert list(calls) == list(seconds)
        return {name: [value, 2 * value, 3 * value] for name, value in seconds.items()}

    monkeypatch.setattr(side_by_side, "interleave", interleave)
    calls = dict.fromkeys([name for name in seconds if name], lambda: None)
    operations = side_by_side.product_call(2, 3, 5, torch.float32, "cpu")[1]
    assert operations == 2 * 2 * 3 * 5 * side_by_side.PRODUCT_REPEATS

    comparison = Comparison(calls, (2, 3, 5), {"vidformers": operations})
    table = side_by_side.compare("both", lambda dtype: comparison, Options(), {"fp32": 3})
    assert [row[0] for row in table.rows] == [f"fp32, {name}" for name in calls]
    assert [row[3] for row in table.rows] == ["1.000", "0.500", "0.250", "1.000", "0.500"]
    assert table.rows[1][1:3] == ["4", "2–6"]
    assert table.notes[0].startswith("fp32, 3 rounds: vidformers at 0.50 of the rate")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_that_of_the_call():
    held = torch.ones(8 << 20)  # 32 MiB that don't count
    extra = side_by_side.extra_bytes(lambda: torch.ones(16 << 20).sum() + held.sum())
    assert 60 << 20 < extra < 90 << 20


def test_page_gets_one_block_and_keeps_the_rest():
    measured = {"machine": "a machine.", "tables": [Table("A title", ("case", "s"), [("one", "1")], ["A note."])]}
    measured = json.loads(json.dumps(measured, default=vars))
    page = runner.filled(PAGE, "vjepa2", runner.block_text(measured))
    before, after = (
        re.split(r"<!-- measured: vjepa2 -->\n.*?<!-- end -->", text, flags=re.DOTALL) for text in (PAGE, page)
    )
    assert before == after
    table = "**A title**\n\n| case | s |\n| --- | --- |\n| one | 1 |\n\nA note.\n\nMeasured on a machine.\n"
    assert f"<!-- measured: vjepa2 -->\n{table}<!-- end -->" in page


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_script_of_a_family_measures(family):
    """Its first table and its first peak, with tiny models."""
    spec = importlib.util.spec_from_file_location(f"benchmark_of_{family}", FOLDER / f"{family}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    options = Options(dtypes=("fp32",), quick=True)

    table = next(iter(script.TABLES.values()))(options)

    labels, ratios = [row[0] for row in table.rows], [float(row[3]) for row in table.rows]
    assert any("vidformers" in label for label in labels)
    assert all(label.startswith("fp32, ") for label in labels)
    assert ratios[0] == 1.0
    assert all(ratio > 0 for ratio in ratios)
    for peak in list(script.PEAKS.values())[:1]:
        assert peak(options)() is not None


@pytest.mark.slow
def test_command_writes_the_blocks_that_are_asked_for(monkeypatch, tmp_path):
    page, ran = tmp_path / "benchmarks.md", []
    page.write_text(PAGE, "utf-8")

    def run_script(command, check):
        ran.append(Path(command[1]).name)
        table = Table("A title", ("case", "s"), [("one", "1")])
        records = {"machine": "a machine.", "tables": [vars(table)]}
        Path(command[command.index("--json") + 1]).write_text(json.dumps(records))

    monkeypatch.setattr(runner.subprocess, "run", run_script)
    command = typer.Typer()
    command.command()(runner.main)

    def invoke(*arguments):
        return CliRunner().invoke(command, [*arguments, "--page", str(page)])

    assert invoke("import_time", "--quick").exit_code == 0
    assert page.read_text("utf-8") == PAGE
    assert invoke("import_time").exit_code == 0
    assert "**A title**" in page.read_text("utf-8")
    assert ran == ["import_time.py"] * 2
    refused = invoke("import_time", "nosuch")
    assert refused.exit_code == 2
    assert "nosuch" in refused.output
    assert len(ran) == 2


@pytest.mark.slow
def test_times_beside_other_work(monkeypatch, tmp_path):
    """One case with tiny models, beside a process, which in a test rests."""
    monkeypatch.setattr(beside_others, "SITUATIONS", {"beside one": (1, None)})
    monkeypatch.setattr(beside_others, "STARTED_SECONDS", 0.1)
    monkeypatch.setattr(beside_others, "BUSY", "import time\ntime.sleep(600)")
    out = tmp_path / "table.json"
    beside_others.main(["videomae"], ["bf16"], processes=1, rounds=1, quick=True, json_out=out)
    (row,) = json.loads(out.read_text())["tables"][0]["rows"]
    assert row[:2] == ["videomae", "bf16"] and float(row[2].split()[0]) > 0
