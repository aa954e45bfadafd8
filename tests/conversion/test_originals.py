"""The original code, found in its checkout whatever else has its names."""

import sys

import pytest

from vidformers.conversion import ConversionError
from vidformers.conversion.originals import importable


def test_a_package_without_init_wins_over_others_of_its_name(tmp_path, monkeypatch):
    for folder in ("checkout", "elsewhere"):
        (tmp_path / folder / "src").mkdir(parents=True)
        (tmp_path / folder / "src" / "model.py").write_text(f"place = {folder!r}")
    (tmp_path / "elsewhere" / "src" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    from src import model as elsewhere

    with importable(tmp_path / "checkout", ("src",)):
        from src import model
    assert (model.place, elsewhere.place) == ("checkout", "elsewhere")
    assert sys.modules["src.model"] is elsewhere
    del sys.modules["src"], sys.modules["src.model"]


def test_a_package_that_is_not_installed(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "model.py").write_text("import a_package_of_nobody")
    message = r"needs the package 'a_package_of_nobody': pip install"
    with pytest.raises(ConversionError, match=message), importable(tmp_path, ("src",)):
        from src import model  # noqa: F401
