"""3x3 convolutions in training on CPUs, where torch's are slow.

`with fast_convolutions(way):` computes the 3x3 convolutions that fit (stride 1, padding 1, one
group, channels multiples of 32) in another way than torch:

- "winograd", for processors with AVX2 and no more (float32): products of matrices with a quarter
  of the multiplications, Winograd's F(4x4, 3x3), between the transforms of
  `compiled.winograd_loops`. Which of its three operations takes which way follows from the size of
  the maps: on wide maps only the gradient of the weights gains, on small ones all three do, and on
  2x2 maps, where 20 of 36 taps meet padding, a convolution is one dense product with a matrix
  (4 C, 4 K).
- "products", for all others (float32, or the type of autocast): on maps of at most 16 pixels and
  128 channels or more the gradient of the weights is one product of matrices per tap, and on at
  most 4 pixels output and gradient of the input are one product each. Other maps are torch's.

Results agree with `torch.nn.functional.conv2d` to rounding (relative error about 2e-6 in float32).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode

from firstspike._tracing import autocast_type, is_plain
from firstspike.compiled.available import has_numba

Way = Literal["winograd", "products"]
_SMALL = 16  # pixels of the largest maps that go through products
_TINY = 4  # pixels of the largest maps of which all three operations do
_WIDE = 16  # pixels a side: from here on the direct convolution is faster, weight gradients aside
_SCRATCH = 6_000_000  # bytes of transformed images at a time, to stay in the caches
_ROWS = 128  # fewest rows of a matrix product, where there are as many
_LANES = 32  # channels are multiples of it
_CHANNELS = 128  # from which products pay

# G of F(4x4, 3x3), (6, 3), and what it makes of 3x3 weights as (36, 9)
_G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_GG = torch.kron(_G, _G)


class fast_convolutions(TorchFunctionMode):
    """Context in which 3x3 convolutions that fit are computed by products of matrices.

    Args:
        way: "winograd" or "products".

    Raises:
        ValueError: if `way` is neither.
        ModuleNotFoundError: if numba is missing for "winograd".

    >>> x, weight = torch.randn(2, 32, 8, 8), torch.randn(32, 32, 3, 3)
    >>> direct = torch.nn.functional.conv2d(x, weight, padding=1)
    >>> with fast_convolutions("winograd"):
    ...     fast = torch.nn.functional.conv2d(x, weight, padding=1)
    >>> bool((fast - direct).norm() < 1e-5 * direct.norm()), torch.equal(fast, direct)
    (True, False)
    """

    def __init__(self, way: Way) -> None:
        super().__init__()
        if way not in get_args(Way):
            raise ValueError(
                f"`way` must be one of {', '.join(get_args(Way))}, got {way!r}. "
                "Pass 'products' when in doubt."
            )
        if way == "winograd" and not has_numba():
            raise ModuleNotFoundError(
                "`convolutions` 'winograd' needs compiled loops. Run: pip install numba, or train "
                "with convolutions='direct'."
            )
        self.way = way

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and _fits(self.way, *args, **kwargs):
            return _convolution(self.way, *args, **kwargs)
        return func(*args, **kwargs)


def _fits(
    way: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether the arguments of `conv2d` are those of a convolution this module computes."""
    products = way == "products"
    types: tuple[torch.dtype, ...] = (torch.float32,)
    if autocast_type("cpu"):
        types = (torch.float32, torch.bfloat16, torch.float16) if products else ()
    return (
        is_plain(input, weight)
        and all(t.dtype in types for t in (input, weight))
        and input.ndim == 4
        and not (products and input.shape[2] * input.shape[3] > _SMALL)
        and not (products and min(weight.shape[:2]) < _CHANNELS)
        and weight.shape[2:] == (3, 3)
        and weight.shape[1] == input.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and weight.shape[0] % _LANES == 0
        and weight.shape[1] % _LANES == 0
        and _pair(stride) == _pair(dilation) == (1, 1)
        and padding != "valid"
        and (padding == "same" or _pair(padding) == (1, 1))
        and groups == 1
        and min(input.shape) > 0
    )


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _convolution(
    way: str, input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    side = (input.shape[2], input.shape[3])
    if way == "products":
        function: type[torch.autograd.Function] = _Products
        if half := autocast_type("cpu"):
            input, weight = input.to(half), weight.to(half)
            bias = None if bias is None else bias.to(half)
    else:
        function = _Dense if side == (2, 2) else _Direct if min(side) >= _WIDE else _Winograd
    output: Tensor = function.apply(input, weight)
    if input.is_contiguous():  # as torch answers in the order it is asked in
        output = output.contiguous()
    return output if bias is None else output + bias[:, None, None]


class _Products(torch.autograd.Function):
    """Small maps: the gradient of the weights a product per tap; tiny ones by products alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight) if _tiny(x) else torch.conv2d(x, weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad
        of_x = None
        if need_x and _tiny(x):
            of_x = _product(gradient, weight.flip(2, 3).transpose(0, 1))
        elif need_x:
            of_x = conv2d_input(x.shape, weight, gradient, padding=1)
        return of_x, _weight_gradient_by_taps(x, gradient) if need_weight else None


def _tiny(x: Tensor) -> bool:
    return x.shape[2] * x.shape[3] <= _TINY


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """`conv2d(x, weight, padding=1)` as one product with all patches of x, in channels_last."""
    n, c, height, width = x.shape
    patches = x.new_zeros(n, height + 2, width + 2, c)
    patches[:, 1:-1, 1:-1] = x.permute(0, 2, 3, 1)
    rows = patches.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3)
    flat = rows.reshape(n * height * width, 9 * c)
    output = flat @ weight.permute(0, 2, 3, 1).reshape(len(weight), 9 * c).T
    return output.view(n, height, width, len(weight)).permute(0, 3, 1, 2)


def _weight_gradient_by_taps(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of `conv2d(x, weight, padding=1)` by its weight, (K, C, 3, 3), a product per tap.

    Pairs of pixels that a tap does not connect, since one lies in the padding, are left out.
    """
    height, width = x.shape[2:]
    c, k = x.shape[1], gradient.shape[1]
    pixels = x.permute(2, 3, 0, 1).contiguous()  # (H, W, N, C)
    slopes = gradient.permute(1, 2, 3, 0).contiguous()  # (K, H, W, N)
    result = x.new_zeros(k, 3, 3, c)
    for row, column in itertools.product(range(3), repeat=2):
        (up, down), (left, right) = _overlap(row - 1, height), _overlap(column - 1, width)
        result[:, row, column] = slopes[:, down, right].reshape(k, -1) @ pixels[up, left].reshape(
            -1, c
        )
    return result.permute(0, 3, 1, 2)


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Inputs and outputs along an axis that a tap connects, `shift` pixels apart."""
    first, last = max(0, shift), length + min(0, shift)
    return slice(first, last), slice(first - shift, last - shift)


class _Winograd(torch.autograd.Function):
    """Output and both gradients by F(4x4, 3x3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return convolve(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        turned = weight.flip(2, 3).transpose(0, 1)
        return (
            convolve(gradient, turned) if need_x else None,
            weight_gradient(x, gradient) if need_weight else None,
        )


class _Direct(torch.autograd.Function):
    """Output and gradient of the input by torch, that of the weights by F(4x4, 3x3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = conv2d_input(x.shape, weight, gradient, padding=1) if need_x else None
        return of_x, weight_gradient(x, gradient) if need_weight else None


# the tap that leads from pixel p to pixel q of a 2x2 map, (16,)
_TAPS = torch.tensor(
    [(p // 2 - q // 2 + 1) * 3 + p % 2 - q % 2 + 1 for p in range(4) for q in range(4)]
)


class _Dense(torch.autograd.Function):
    """2x2 maps: one product with the matrix (4 C, 4 K) of all taps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        k, c = weight.shape[:2]
        flat = x.permute(0, 2, 3, 1).reshape(len(x), 4 * c)
        taps = weight.permute(2, 3, 1, 0).reshape(9, c, k)[_TAPS].view(4, 4, c, k)
        matrix = taps.permute(0, 2, 1, 3).reshape(4 * c, 4 * k)
        ctx.save_for_backward(flat, matrix)
        ctx.channels = c, k
        return (flat @ matrix).view(len(x), 2, 2, k).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        flat, matrix = ctx.saved_tensors
        c, k = ctx.channels
        rows = gradient.permute(0, 2, 3, 1).reshape(len(gradient), 4 * k)
        of_x = (rows @ matrix.T).view(len(rows), 2, 2, c).permute(0, 3, 1, 2)
        taps = (flat.T @ rows).view(4, c, 4, k).permute(0, 2, 1, 3).reshape(16, c, k)
        of_weight = taps.new_zeros(9, c, k).index_add_(0, _TAPS, taps)
        return of_x, of_weight.view(3, 3, c, k).permute(3, 2, 0, 1)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """`conv2d(x, weight, padding=1)` by F(4x4, 3x3); x in channels_last, no gradients.

    Args:
        x: (N, C, H, W), float32.
        weight: (K, C, 3, 3).

    Returns:
        (N, K, H, W) in channels_last.
    """
    from firstspike.compiled.winograd_loops import transform_input, transform_output

    k, c = weight.shape[:2]
    filters = (_GG @ weight.permute(2, 3, 1, 0).reshape(9, c * k)).view(36, c, k)
    n, _, height, width = x.shape
    output = torch.empty(n, k, height, width, memory_format=torch.channels_last)
    pixels, results = _last(x), _last(output)
    for start, stop, tiles in _chunks(n, height, width, c + k):
        points, products = torch.empty(36, tiles, c), torch.empty(36, tiles, k)
        transform_input(pixels[start:stop], points.numpy())
        torch.bmm(points, filters, out=products)
        transform_output(products.numpy(), results[start:stop])
    return output


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of `conv2d(x, weight, padding=1)` by its weight, (K, C, 3, 3), by F(4x4, 3x3).

    Args:
        x: (N, C, H, W), float32 in channels_last.
        gradient: of the output, (N, K, H, W), in channels_last.
    """
    from firstspike.compiled.winograd_loops import transform_gradient, transform_input

    n, c, height, width = x.shape
    k = gradient.shape[1]
    total = torch.zeros(36, c, k)
    pixels, gradients = _last(x), _last(gradient)
    for start, stop, tiles in _chunks(n, height, width, c + k):
        points, slopes = torch.empty(36, tiles, c), torch.empty(36, tiles, k)
        transform_input(pixels[start:stop], points.numpy())
        transform_gradient(gradients[start:stop], slopes.numpy())
        total.baddbmm_(points.transpose(1, 2), slopes)
    return (_GG.T @ total.view(36, c * k)).view(3, 3, c, k).permute(3, 2, 0, 1)


def _last(x: Tensor) -> Any:
    """The tensor's memory as an array (N, H, W, C)."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def _chunks(n: int, height: int, width: int, channels: int) -> Iterator[tuple[int, int, int]]:
    """First image, last image and tiles of parts whose transformed images fit the caches."""
    tiles = -(-height // 4) * -(-width // 4)
    images = max(_SCRATCH // (144 * tiles * channels), -(-_ROWS // tiles), 1)
    for start in range(0, n, images):
        stop = min(n, start + images)
        yield start, stop, (stop - start) * tiles
