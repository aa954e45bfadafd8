"""Settings of all tests: nothing is fetched from the network, torch computes on one thread, skips give a reason."""

import gc
import os
import sys
from pathlib import Path


os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch


pytest.register_assert_rewrite("tests.harness")


def pytest_configure(config):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def pytest_collection_finish(session):
    """What imports leave are millions of objects that stay: the garbage collector needn't look at them."""
    check_groups(session)
    gc.collect()
    gc.freeze()


def check_groups(session):
    """pytest-xdist tells groups by what it adds to the names of tests, which not every pytest lets it do."""
    grouped = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group")]
    if session.config.getoption("loadgroup", False) and not all("@" in name for name in grouped):
        raise pytest.UsageError("this pytest and this pytest-xdist keep no groups of tests together")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A skip without a reason counts as a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not getattr(report, "wasxfail", None):
        *_, reason = report.longrepr
        if reason.removeprefix("Skipped").lstrip(": ") in ("", "unconditional skip"):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} is skipped without a reason"


@pytest.fixture(scope="session")
def shapes():
    """The module that draws clips of moving shapes, utils/demo/shapes.py."""
    folder = str(Path(__file__).parents[1] / "utils/demo")
    sys.path.insert(0, folder)
    try:
        import shapes
    finally:
        sys.path.remove(folder)
    return shapes
