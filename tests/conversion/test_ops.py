"""Operations of rules: what they make of tensors, and that their inverse undoes it."""

import pytest
import torch

from vidformers.conversion.ops import Chain, Copy, Reshape, Split, Stack, Transpose, Unstack


@pytest.mark.parametrize(
    "op",
    [
        Copy(),
        Transpose((2, 0, 1)),
        Reshape((4, 6, 2), (4, -1)),
        Split(2),
        Split((1, 3)),
        Unstack(),
        Chain((Split(2), Stack())),
        Chain((Unstack(), Transpose())),
    ],
)
def test_inverse_undoes_forward(op):
    tensor = torch.randn(4, 6, 2)
    (back,) = op.inverse(op.forward([tensor]))
    assert torch.equal(back, tensor)
    (shape,) = op.inverse(op.forward([tensor.to("meta")]))
    assert shape.shape == tensor.shape


def test_what_operations_make():
    tensor = torch.arange(24).reshape(4, 6)
    assert Transpose().forward([tensor])[0].shape == (6, 4)
    assert [piece.shape for piece in Split((1, 3)).forward([tensor])] == [(1, 6), (3, 6)]
    first, second = Split(2).forward([tensor])
    assert torch.equal(first, tensor[:2]) and torch.equal(second, tensor[2:])
    assert torch.equal(Stack().forward([tensor, -tensor])[0][1], -tensor)
    assert torch.equal(Unstack().forward([tensor])[3], tensor[3])
    assert torch.equal(Reshape((4, 6), (2, 12)).forward([tensor])[0][1], tensor[2:].flatten())


def test_operations_give_views():
    tensor = torch.randn(4, 6)
    for op in (Transpose(), Reshape((4, 6), (24,)), Split(2), Split((1, 3)), Unstack()):
        assert all(piece.untyped_storage().data_ptr() == tensor.data_ptr() for piece in op.forward([tensor]))
