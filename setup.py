"""Build of `vidformers`: the folder `src` is the package, the folder `conversion` its subpackage."""

import re
from pathlib import Path

from setuptools import find_packages, setup


ROOT = Path(__file__).parent
REPOSITORY = "https://github.com/vidformers/vidformers"
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


def description() -> str:
    """README.md as a package index shows it, where the repository's files need absolute addresses."""

    def absolute(link: re.Match) -> str:
        kind = "raw" if link[1].endswith((".gif", ".jpg", ".png", ".svg")) else "blob"
        return f"]({REPOSITORY}/{kind}/main/{link[1]})"

    pieces = re.split(r"(^```.*?^```$)", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    code_blocks = pieces[1::2]
    prose = [re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", absolute, piece) for piece in pieces[::2]]
    return "".join(piece for pair in zip(prose, [*code_blocks, ""]) for piece in pair)


setup(
    name="vidformers",
    version=version(),
    description="Video foundation models for Hugging Face Transformers, exact to their original implementations",
    long_description=description(),
    long_description_content_type="text/markdown",
    author="The vidformers authors",
    url=REPOSITORY,
    project_urls={
        "Documentation": f"{REPOSITORY}/blob/main/docs/index.md",
        "Source": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
    },
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "video",
        "video understanding",
        "foundation models",
        "transformers",
        "self-supervised learning",
        "V-JEPA 2",
        "VideoPrism",
        "VideoMAE",
        "Perception Encoder",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    package_dir=PACKAGE_DIRS,
    packages=packages(),
    package_data={
        "vidformers": ["py.typed", "commands/*.html", "demo_models/*/*.json", "demo_models/*/*.safetensors"]
    },
    python_requires=">=3.11",
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
            "lancedb>=0.40",
            "matplotlib>=3.8",
            "parameterized>=0.9",
            "peft>=0.17",
            "protobuf>=4",
            "pytest>=8,<9.2",  # pytest-xdist 3.8 keeps no groups together with 9.2
            "pytest-xdist>=3.6",
            "ruff>=0.11",
            "sentencepiece>=0.2",
            "setuptools>=77",
        ],
        "train": ["accelerate>=1.1", "matplotlib>=3.8", "peft>=0.17"],
        "docs": ["hf-doc-builder>=0.5", "mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.28"],
        # Comparisons use transformers alone; timm would bring torchvision along.
        "bench": [],
        # Tables of embeddings and their search; pyarrow comes along, which writes Parquet.
        "search": ["lancedb>=0.40"],
        "ray": ["ray[data]>=2.50"],
        "torchcodec": ["torchcodec>=0.7"],
        "sentence-transformers": ["sentence-transformers>=6"],
        "mteb": ["mteb>=2.26", "sentence-transformers>=6"],
        # What docs/integrations.md works with, for the tests that `make test-ecosystem` runs.
        "ecosystem": [
            "bitsandbytes>=0.49",
            "datasets>=4",
            "lancedb>=0.40",
            "mteb>=2.26",
            "onnx>=1.19",
            "onnxruntime>=1.23",
            "onnxscript>=0.5",
            "peft>=0.17",
            "ray[data]>=2.50",
            "sentence-transformers>=6",
            "torchao>=0.17",
        ],
    },
    entry_points={"console_scripts": ["vidformers=vidformers.commands.cli:main"]},
)
