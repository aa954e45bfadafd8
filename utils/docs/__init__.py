"""The build of the documentation (`build_docs.py`) and its parts: docstrings, pages, tables made from the code."""
