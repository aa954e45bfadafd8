#!/usr/bin/env python3
"""Build the documentation: a site to browse, and the files that Hugging Face's documentation server takes.

Usage: python utils/docs/build_docs.py [OUT]

Under OUT, by default `build/docs`: `site/index.html`, which needs neither a server nor a network; `hf/`, what
`doc-builder build` makes; `pages/` and `package/`, what the site is made from. `docs/` is only read. Any fault that
`utils/checks/check_docs.py` finds, or that the builders warn of, stops the build with exit status 1.

The pages are those of `docs/_toctree.yml`. One is added with the commands, and for every family in `src/families.py`
one with the tables of its checkpoints and of the rules that convert them.
"""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

import vidformers
from vidformers.families import FAMILIES


sys.path.insert(0, str(Path(__file__).parents[1]))

from checks.check_docs import NEEDING_OTHERS, PUBLIC_SUBPACKAGES, ROOT, check

from docs.commands import commands_page
from docs.names import Documentation
from docs.pages import to_site
from docs.tables import family_page


PACKAGE = vidformers.__name__
FOLDERS = {PACKAGE: ROOT / "src", f"{PACKAGE}/conversion": ROOT / "conversion"}
ASSETS, PICTURES = ("site.css", "iframe-worker.js"), "images"
TABLES, COMMANDS = "conversion", "commands"
MARKDOWN = {
    "admonition": {},
    "attr_list": {},
    "tables": {},
    "toc": {"permalink": True, "toc_depth": 3},
    "pymdownx.highlight": {},
    "pymdownx.superfences": {},
}


def main() -> int:
    """Build everything, or say what is wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/docs").resolve()
    documentation = Documentation(ROOT / "docs", vidformers)
    faults = check(documentation)
    if faults:
        print(*faults, sep="\n")
        return 1
    for name in ("hf", "package", "pages", "site"):
        shutil.rmtree(out / name, ignore_errors=True)
    write_package(out / "package")
    write_pages(out / "pages", documentation)
    try:
        build_site(out, documentation)
        build_for_hugging_face(out / "hf")
    except (Abort, subprocess.CalledProcessError) as error:
        print(error)
        return 1
    print(f"{out / 'site/index.html'}\n{out / 'hf' / PACKAGE}")
    return 0


def write_package(out: Path) -> None:
    """Copy the code as one package whose names are found without running it: lazy ones become imports.

    Modules that derive from classes of packages that need not be there are on no page, and stay behind.
    """
    for name, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if ".".join(inside.with_suffix("").parts) in NEEDING_OTHERS:
                continue
            copy = out / name / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    for name in ("", *PUBLIC_SUBPACKAGES):
        module = sys.modules[f"{PACKAGE}.{name}" if name else PACKAGE]
        lines = [f"from {source} import {offered}" for offered, source in module._MODULES.items()]
        with (out / PACKAGE / name / "__init__.py").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


def write_pages(out: Path, documentation: Documentation) -> None:
    """Write the pages of the site, those of the folder and those of the families' tables, with pictures and assets."""
    pages = {name: to_site(page, documentation, see_also=see_also(name)) for name, page in documentation.pages.items()}
    pages |= {f"{TABLES}/{name}": family_page(family) for name, family in FAMILIES.items()}
    pages[COMMANDS] = commands_page()
    for name, text in pages.items():
        (out / f"{name}.md").parent.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.md").write_text(text, "utf-8")
    shutil.copytree(ROOT / "docs" / PICTURES, out / PICTURES)
    for name in ASSETS:
        (out / "assets").mkdir(exist_ok=True)
        shutil.copyfile(ROOT / "utils/docs" / name, out / "assets" / name)


def see_also(page: str) -> str:
    """What a family's page says of the tables."""
    name = page.removeprefix("model_doc/")
    if page == name or name not in FAMILIES:
        return ""
    return f"## Tables\n\n[Published checkpoints, and the rules that convert them](../{TABLES}/{name}.md)"


def build_site(out: Path, documentation: Documentation) -> None:
    """Run mkdocs; every warning of it is an error."""
    settings = site_settings(out, documentation)
    (out / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "utf-8")
    config = load_config(str(out / "mkdocs.yml"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build(config)
    finally:
        config.plugins.on_shutdown()


def site_settings(out: Path, documentation: Documentation) -> dict[str, Any]:
    """The settings of mkdocs. Nothing on the site comes from another host."""
    tables = [{family.title: f"{TABLES}/{name}.md"} for name, family in FAMILIES.items()]
    return {
        "site_name": PACKAGE,
        "docs_dir": str(out / "pages"),
        "site_dir": str(out / "site"),
        "use_directory_urls": False,
        "nav": [*navigation(documentation.toctree), {"Commands": f"{COMMANDS}.md"}, {"Conversion tables": tables}],
        "theme": {
            "name": "material",
            "font": False,
            "features": [
                "content.code.copy",
                "navigation.sections",
                "navigation.top",
                "search.highlight",
                "toc.follow",
            ],
            "palette": [
                palette("default", "weather-night", "dark", "light"),
                palette("slate", "weather-sunny", "light", "dark"),
            ],
        },
        "extra_css": ["assets/site.css"],
        # Material would take a script of this name from the network.
        "extra": {"homepage": "index.html", "polyfills": ["assets/iframe-worker.js"], "generator": False},
        "plugins": [{"search": {}}, {"offline": {}}, {"mkdocstrings": {"handlers": {"python": python_handler(out)}}}],
        "markdown_extensions": [{name: options} for name, options in MARKDOWN.items()],
        "validation": {
            "omitted_files": "warn",
            "absolute_links": "warn",
            "unrecognized_links": "warn",
            "anchors": "warn",
        },
    }


def palette(scheme: str, icon: str, other: str, preferred: str) -> dict[str, Any]:
    """A color scheme, taken where the system prefers it, and the button to the other one."""
    return {
        "media": f"(prefers-color-scheme: {preferred})",
        "scheme": scheme,
        "primary": "indigo",
        "toggle": {"icon": f"material/{icon}", "name": f"Switch to {other} colors"},
    }


def python_handler(out: Path) -> dict[str, Any]:
    """How mkdocstrings shows the code."""
    return {
        "paths": [str(out / "package")],
        "options": {
            "allow_inspection": False,
            "docstring_style": None,
            "extensions": [{"docs.griffe_docstrings": {"docs": str(ROOT / "docs")}}],
            "merge_init_into_class": True,
            "separate_signature": True,
            "show_bases": False,
            "show_root_full_path": False,
            "show_root_heading": True,
            "show_root_toc_entry": True,
            "show_signature_annotations": True,
            "show_source": False,
            "signature_crossrefs": True,
        },
    }


def navigation(toctree: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The menu of mkdocs from a table of contents of Hugging Face."""
    return [
        {entry["title"]: navigation(entry["sections"]) if "sections" in entry else f"{entry['local']}.md"}
        for entry in toctree
    ]


def build_for_hugging_face(out: Path) -> None:
    """Run doc-builder on the folder as it is, without its step that needs node."""
    options = ["--build_dir", str(out), "--version", "main", "--clean"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("doc-builder"), "build", PACKAGE, str(ROOT / "docs"), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    if done.returncode:
        print(done.stdout)
        done.check_returncode()


if __name__ == "__main__":
    sys.exit(main())
