"""Tools of others, which `make test-ecosystem` installs. Where they aren't there, none of these tests is collected."""

from importlib.util import find_spec

import pytest


TOOLS = ("bitsandbytes", "datasets", "lancedb", "mteb", "onnxruntime", "onnxscript", "peft", "ray", "torchao")

collect_ignore_glob = [] if all(map(find_spec, TOOLS)) else ["test_*.py"]


@pytest.fixture(scope="session")
def cluster():
    """A Ray of this machine for two workers, which all tests of a process share: each start takes seconds."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
