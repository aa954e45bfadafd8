"""What `make check` and `make docs` look at besides style. Scripts import this folder with `utils` on the path."""
