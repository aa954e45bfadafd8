"""The original code, found in its checkout whatever else has its names."""

import sys

import pytest

from vidformers.conversion import ConversionError
from vidformers.conversion.originals import importable


def test_a_package_without_init_wins_over_others_of_its_name(tmp_path, monkeypatch):
    for folder in ("checkout", "elsewhere"):
        (tmp_path / folder / "evals").mkdir(parents=True)
        (tmp_path / folder / "evals" / "model.py").write_text(f"place = {folder!r}")
    (tmp_path / "elsewhere" / "evals" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    from evals import model as elsewhere

    with importable(tmp_path / "checkout", ("evals",)):
        from evals import model
    assert (model.place, elsewhere.place) == ("checkout", "elsewhere")
    assert sys.modules["evals.model"] is elsewhere
    del sys.modules["evals"], sys.modules["evals.model"]


def test_a_package_that_is_not_installed(tmp_path):
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "model.py").write_text("import a_package_of_nobody")
    message = r"needs the package 'a_package_of_nobody': pip install"
    with pytest.raises(ConversionError, match=message), importable(tmp_path, ("evals",)):
        from evals import model  # noqa: F401
