"""Every tolerance of the shared tests, each with its reason."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """How far a stage may be from what is expected.

    Attributes:
        factor: the largest difference, relative to the stage's largest expected magnitude.
        floor: magnitude that stands in for smaller ones, so that stages close to zero aren't held to their own noise.
        reason: why that much.
    """

    factor: float
    floor: float
    reason: str

    def limit(self, expected: torch.Tensor, terms: float = 0.0) -> float:
        """The largest difference that passes, of values whose terms may have a larger magnitude than their sums.

        NaN, within which nothing is, of values that are not all finite.
        """
        magnitude = expected.double().abs().max().item() if expected.numel() else 0.0
        return self.factor * max(self.floor, magnitude, terms) if math.isfinite(magnitude) else math.nan


EXACT = Tolerance(0.0, 0.0, "values are stored and read, or the same operations run on the same numbers")

GOLDEN = Tolerance(
    1e-5,
    1.0,
    "fp32 rounding: the recordings come from another CPU, on which sums run in another order; the original code "
    "itself, run again on a different machine, deviates from them by 1.0e-5 where outputs reach 4",
)

REORDERED = Tolerance(
    1e-5,
    0.1,
    "the same mathematics in fp32 with sums in another order: other backends, batch sizes, compilers, or the "
    "transformers implementation",
)

GRADIENTS = Tolerance(
    1e-4,
    0.1,
    "gradients in fp32 sum over all tokens of a batch, after rounding in the forward pass and in the backward pass",
)

DTYPES = {
    torch.float32: REORDERED,
    torch.float16: Tolerance(
        5e-3, 0.1, "fp16 keeps 11 bits (5e-4) of every activation; ten times that is left over a few blocks"
    ),
    torch.bfloat16: Tolerance(
        4e-2, 0.1, "bf16 keeps 8 bits (4e-3) of every activation; ten times that is left over a few blocks"
    ),
}

DTYPE_GRADIENTS = {
    torch.float32: GRADIENTS,
    torch.float16: Tolerance(
        3e-2, 0.1, "activations in fp16 are off by up to 5e-3, which the backward pass multiplies and sums again"
    ),
    torch.bfloat16: Tolerance(
        2e-1, 0.1, "activations in bf16 are off by up to 4e-2, which the backward pass multiplies and sums again"
    ),
}

INT8 = Tolerance(
    5e-2, 0.1, "a weight in int8 is off by up to 1/254 of its row's largest; about ten such layers follow one another"
)

PIXELS = Tolerance(
    1e-6, 1.0, "rescaling and normalizing a byte takes two fp32 operations, which may be merged into one"
)

# What must change has to change by more than any rounding that the tolerances above admit.
NOTICEABLE = 1e-3
