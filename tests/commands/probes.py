"""What the tests of `vidformers probe` share: quick trainings, and the command."""

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from vidformers.commands import probe
from vidformers.commands.cli import app


TINY = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "pred_hidden_size": 24}
TINY |= {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2, "crop_size": 32, "patch_size": 16}
QUICK = {"epochs": 2, "batch_size": 3, "rates": (1e-2, 1e-3)}


def settings(**changes: Any) -> probe.Settings:
    return probe.Settings(**{**QUICK, **changes})


def prepared(clips: Path, model: Path, changes: probe.Settings | None = None, **options: Any) -> probe.Task:
    return probe.prepare(clips, model, changes or settings(), **{"num_frames": 4, **options})


def trained(task: probe.Task, out: Path, **options: Any) -> probe.Measures:
    return probe.train(task, out, workers=0, **options)


def run(*arguments: Any, expect: int = 0) -> str:
    """What the command prints."""
    options = "--workers", "0", "--epochs", "2", "--batch-size", "3", "--num-frames", "4"
    result = CliRunner().invoke(app, ["probe", *map(str, arguments), *options])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output
