"""Tools of others, which `make test-ecosystem` installs. Where they aren't there, none of these tests is collected."""

from importlib.util import find_spec


TOOLS = ("bitsandbytes", "datasets", "lancedb", "mteb", "onnxruntime", "onnxscript", "peft", "ray", "torchao")

collect_ignore_glob = [] if all(map(find_spec, TOOLS)) else ["test_*.py"]
