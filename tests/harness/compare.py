"""Comparison stage by stage: a failure shows every stage of a forward pass and marks the first that diverges."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .tolerances import Tolerance


@dataclass(frozen=True)
class Row:
    """How far two values of one stage are apart; infinitely where one is missing or has another shape."""

    stage: str
    shape: str
    max_abs: float
    relative: float
    cosine: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the largest difference is within the limit; a NaN never is."""
        return self.max_abs <= self.limit


@dataclass(frozen=True)
class StageTable:
    """One row a stage, in the order of the computation."""

    title: str
    tolerance: Tolerance
    rows: tuple[Row, ...]

    @property
    def first_diverging(self) -> str | None:
        """The first stage beyond its limit."""
        return next((row.stage for row in self.rows if not row.passed), None)

    def __str__(self) -> str:
        width = max([5, *(len(row.stage) for row in self.rows)])
        lines = [
            f"{self.title}: {self.first_diverging or 'nothing'} diverges (tolerance {self.tolerance.factor:g}: "
            f"{self.tolerance.reason})",
            f"  {'stage':{width}}  {'max abs':>9}  {'limit':>9}  {'relative':>9}  {'cosine':>10}  shape",
        ]
        for row in self.rows:
            mark = "" if row.passed else "  <- diverges"
            if row.stage == self.first_diverging:
                mark = "  <== first stage that diverges"
            lines.append(
                f"  {row.stage:{width}}  {row.max_abs:9.2e}  {row.limit:9.2e}  {row.relative:9.2e}  "
                f"{row.cosine:10.7f}  {row.shape}{mark}"
            )
        return "\n".join(lines)


def compare(
    title: str,
    expected: Mapping[str, torch.Tensor],
    actual: Mapping[str, torch.Tensor],
    tolerance: Tolerance,
    terms: Mapping[str, float] | None = None,
) -> StageTable:
    """Compare every expected stage; `actual` may hold more, and `terms` the magnitude of what a stage sums up."""
    limits = {name: tolerance.limit(value, (terms or {}).get(name, 0.0)) for name, value in expected.items()}
    rows = (_row(name, expected[name], actual.get(name), limit) for name, limit in limits.items())
    return StageTable(title, tolerance, tuple(rows))


def assert_close(
    title: str,
    expected: Mapping[str, torch.Tensor],
    actual: Mapping[str, torch.Tensor],
    tolerance: Tolerance,
    terms: Mapping[str, float] | None = None,
) -> None:
    """Fail with the table of all stages unless every expected stage is within its limit; see [`compare`]."""
    assert expected, f"{title}: there is nothing to compare"
    table = compare(title, expected, actual, tolerance, terms)
    if table.first_diverging is not None:
        raise AssertionError(str(table))


def _row(stage: str, expected: torch.Tensor, actual: torch.Tensor | None, limit: float) -> Row:
    shape = str(list(expected.shape))
    if actual is None or actual.shape != expected.shape:
        found = "missing" if actual is None else f"found {list(actual.shape)}"
        return Row(stage, f"{shape}, {found}", float("inf"), float("inf"), 0.0, limit)
    left, right = expected.detach().cpu().double().flatten(), actual.detach().cpu().double().flatten()
    difference = left - right
    return Row(
        stage,
        shape,
        max_abs=difference.abs().max().item() if len(left) else 0.0,
        relative=(difference.norm() / left.norm().clamp_min(1e-30)).item(),
        cosine=torch.nn.functional.cosine_similarity(left, right, dim=0).item(),
        limit=limit,
    )


def stages(output: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a model's output by dotted name, recorded states before what follows from them."""
    return dict(_walk(output, prefix))


def _walk(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=lambda key: key not in ("hidden_states", "attentions")):
            yield from _walk(value[key], f"{name}.{key}".lstrip("."))
    elif isinstance(value, (tuple, list)):
        for index, entry in enumerate(value):
            yield from _walk(entry, f"{name}.{index}".lstrip("."))


def pick(output: Any, path: str) -> Any:
    """The field of an output at a dotted path, `None` where it isn't there."""
    for name in path.split("."):
        output = None if output is None else getattr(output, name, None)
    return output
