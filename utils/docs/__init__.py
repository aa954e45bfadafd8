"""Parts of `utils/build_docs.py`: docstrings, pages, and the tables that come from the code."""
