"""Invertible operations on lists of tensors, from the original's to ours and back.

They return views where they can and run on the meta device, so that shapes follow from shapes.
"""

from dataclasses import dataclass

import torch


Tensors = list[torch.Tensor]


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message names the file, the cause and the remedy."""


@dataclass(frozen=True)
class Op:
    """An operation and its inverse."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Original tensors → ours."""
        raise NotImplementedError

    def inverse(self, tensors: Tensors) -> Tensors:
        """Our tensors → the original's."""
        raise NotImplementedError


@dataclass(frozen=True)
class Copy(Op):
    """The same tensors."""

    def forward(self, tensors: Tensors) -> Tensors:
        return tensors

    def inverse(self, tensors: Tensors) -> Tensors:
        return tensors


@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order: axis `i` of ours is axis `axes[i]` of the original."""

    axes: tuple[int, ...] = (1, 0)

    def forward(self, tensors: Tensors) -> Tensors:
        return [tensor.permute(self.axes) for tensor in tensors]

    def inverse(self, tensors: Tensors) -> Tensors:
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return [tensor.permute(back) for tensor in tensors]


@dataclass(frozen=True)
class Reshape(Op):
    """Another shape for the same values in row-major order; both are given, so that both directions are known."""

    original: tuple[int, ...]
    ours: tuple[int, ...]

    def forward(self, tensors: Tensors) -> Tensors:
        return [tensor.reshape(self.ours) for tensor in tensors]

    def inverse(self, tensors: Tensors) -> Tensors:
        return [tensor.reshape(self.original) for tensor in tensors]


@dataclass(frozen=True)
class Split(Op):
    """One tensor cut along axis 0, into so many equal parts or into parts of the given sizes."""

    parts: int | tuple[int, ...]

    def forward(self, tensors: Tensors) -> Tensors:
        (tensor,) = tensors
        cut = tensor.tensor_split if isinstance(self.parts, int) else tensor.split
        return list(cut(self.parts))

    def inverse(self, tensors: Tensors) -> Tensors:
        return [torch.cat(tensors)]


@dataclass(frozen=True)
class Stack(Op):
    """Several tensors of one shape as one, along a new axis 0."""

    def forward(self, tensors: Tensors) -> Tensors:
        return [torch.stack(tensors)]

    def inverse(self, tensors: Tensors) -> Tensors:
        (stacked,) = tensors
        return list(stacked.unbind(0))


@dataclass(frozen=True)
class Unstack(Stack):
    """One tensor for each index of axis 0: the other way round."""

    forward, inverse = Stack.inverse, Stack.forward


@dataclass(frozen=True)
class Constant(Op):
    """A tensor of one value that the original doesn't have."""

    value: float
    shape: tuple[int, ...] = ()

    def forward(self, tensors: Tensors) -> Tensors:
        return [torch.full(self.shape, float(self.value))]

    def inverse(self, tensors: Tensors) -> Tensors:
        return []


@dataclass(frozen=True)
class Chain(Op):
    """Operations one after the other, in the direction original → ours."""

    steps: tuple[Op, ...]

    def forward(self, tensors: Tensors) -> Tensors:
        for step in self.steps:
            tensors = step.forward(tensors)
        return tensors

    def inverse(self, tensors: Tensors) -> Tensors:
        for step in reversed(self.steps):
            tensors = step.inverse(tensors)
        return tensors
