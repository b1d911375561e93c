"""Random geometry and colour: shapes, types, seeds, and what each must leave alone."""

import pytest
import torch

from firstspike.data.auto_augment import _OPERATIONS, RandomAffine, RandomOperations


def picture(dtype):
    x = torch.zeros(6, 3, 16, 16)
    x[:, :, 5:11, 5:11] = 0.8
    return (255 * x).to(dtype) if dtype == torch.uint8 else x


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("augment", [RandomAffine(), RandomOperations(strength=1.0)])
def test_shape_type_range_and_seed(augment, dtype):
    x = picture(dtype)
    before = x.clone()
    a, b = (augment(x, torch.Generator().manual_seed(3)) for _ in range(2))
    other = augment(x, torch.Generator().manual_seed(4))
    assert a.shape == x.shape and a.dtype == dtype and torch.equal(x, before)
    assert torch.equal(a, b) and not torch.equal(a, other)
    assert float(a.float().min()) >= 0
    assert float(a.float().max()) <= (255 if dtype == torch.uint8 else 1)


def test_no_strength_changes_nothing():
    x = picture(torch.float32)
    same = RandomAffine(0.0, 0.0, 0.0)(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, x, rtol=0, atol=1e-5)
    untouched = RandomOperations(probability=0.0)(x, torch.Generator().manual_seed(0))
    assert torch.equal(untouched, x)


def test_rotations_leave_the_centre_where_it_is():
    x = torch.rand(4, 1, 9, 9)
    turned = RandomAffine(90.0, 0.0, 0.0)(x, torch.Generator().manual_seed(0))
    assert not torch.allclose(turned, x)
    middle = turned[:, :, 4, 4]
    torch.testing.assert_close(middle, x[:, :, 4, 4], rtol=0, atol=1e-5)  # the centre stays


def test_each_operation_keeps_black_and_white_in_range():
    x = torch.cat([torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)])
    for operation in _OPERATIONS:
        for amount in (-1.0, 0.0, 1.0):
            y = operation(x, torch.full((4,), amount))
            assert y.shape == x.shape and bool(((y >= 0) & (y <= 1 + 1e-6)).all())


def test_refusals():
    with pytest.raises(ValueError, match="`degrees` must lie in"):
        RandomAffine(degrees=-1.0)
    with pytest.raises(ValueError, match="`count` must be a positive integer"):
        RandomOperations(count=0)
    with pytest.raises(ValueError, match="`strength` must lie in"):
        RandomOperations(strength=2.0)
