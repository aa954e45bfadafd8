"""Build of `vidformers`: the folder `src` is the package, the folder `conversion` its subpackage."""

import re
from pathlib import Path

from setuptools import find_packages, setup


ROOT = Path(__file__).parent
PACKAGE_DIRS = {"vidformers": "src", "vidformers.conversion": "conversion"}


def version() -> str:
    """The version that `src/__init__.py` states."""
    return re.search(r'^__version__ = "(.+)"$', (ROOT / "src/__init__.py").read_text("utf-8"), re.MULTILINE)[1]


def packages() -> list[str]:
    """Every package below the two folders, under the name that it is imported by."""
    return [
        ".".join([prefix, *name.split(".")]) if name else prefix
        for prefix, folder in PACKAGE_DIRS.items()
        for name in ["", *find_packages(str(ROOT / folder))]
    ]


setup(
    name="vidformers",
    version=version(),
    description="Video foundation models for Hugging Face Transformers, exact to their original implementations",
    long_description=(ROOT / "README.md").read_text("utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["video", "transformers", "vision", "self-supervised", "V-JEPA", "VideoPrism"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    package_dir=PACKAGE_DIRS,
    packages=packages(),
    package_data={"vidformers": ["py.typed", "demo_models/*/*.json", "demo_models/*/*.safetensors"]},
    python_requires=">=3.10",
    install_requires=[
        "av>=14",
        "ftfy>=6.1",
        "huggingface_hub>=1.0",
        "numpy>=1.26",
        "pillow>=10.1",
        "regex>=2022.1.18",
        "rich>=13",
        "safetensors>=0.5",
        "tokenizers>=0.22",
        "torch>=2.6",
        "transformers>=5.19,<6",
        "typer>=0.12",
    ],
    extras_require={
        "test": [
            "accelerate>=1.1",
            "parameterized>=0.9",
            "protobuf>=4",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.11",
            "sentencepiece>=0.2",
        ],
        # The Trainer of transformers, which `vidformers finetune` uses, asks for it.
        "train": ["accelerate>=1.1"],
        "docs": ["hf-doc-builder>=0.5", "mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.28"],
        # Comparisons use transformers alone; timm would bring torchvision along.
        "bench": [],
        # Tables of embeddings and their search; pyarrow comes along, which writes Parquet.
        "search": ["lancedb>=0.40", "pyarrow>=16"],
        "torchcodec": ["torchcodec>=0.7"],
    },
    entry_points={"console_scripts": ["vidformers=vidformers.commands.cli:main"]},
)
