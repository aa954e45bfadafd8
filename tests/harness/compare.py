"""Comparison stage by stage: a failure shows every stage of a forward pass and marks the first that diverges."""

from collections.abc import Mapping
from typing import Any

import torch

from vidformers.conversion.verify import Report, compare_stage, named_tensors

from .tolerances import Tolerance


def compare(
    title: str,
    expected: Mapping[str, torch.Tensor],
    actual: Mapping[str, torch.Tensor],
    tolerance: Tolerance,
    terms: Mapping[str, float] | None = None,
) -> Report:
    """Compare every expected stage; `actual` may hold more, and `terms` the magnitude of what a stage sums up."""
    limits = {name: tolerance.limit(value, (terms or {}).get(name, 0.0)) for name, value in expected.items()}
    stages = (compare_stage(name, expected[name], actual.get(name), limit) for name, limit in limits.items())
    return Report(title, tolerance.factor, tuple(stages), tolerance.reason)


def assert_close(
    title: str,
    expected: Mapping[str, torch.Tensor],
    actual: Mapping[str, torch.Tensor],
    tolerance: Tolerance,
    terms: Mapping[str, float] | None = None,
) -> None:
    """Fail with the report of all stages unless every expected stage is within its limit; see [`compare`]."""
    assert expected, f"{title}: there is nothing to compare"
    report = compare(title, expected, actual, tolerance, terms)
    if not report.passed:
        raise AssertionError(str(report))


def stages(output: Any) -> dict[str, torch.Tensor]:
    """The tensors of a model's output by dotted name, recorded states before what follows from them."""
    return dict(named_tensors(output))


def pick(output: Any, path: str) -> Any:
    """The field of an output at a dotted path, numbers for entries of tuples; `None` where it isn't there."""
    for name in path.split("."):
        if name.isdigit():
            output = output[int(name)]
        else:
            output = None if output is None else getattr(output, name, None)
    return output
