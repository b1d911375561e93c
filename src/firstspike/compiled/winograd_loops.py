"""Winograd's transforms of images for F(4x4, 3x3), compiled; `training.fast_convolution` uses them.

Images are (N, H, W, C), float32, with C a multiple of `LANES`. Each 4x4 tile of the output needs
6x6 pixels of the input, its own and one more on every side; what lies beyond the border is zero,
and a tile that reaches beyond it is cut off. Transformed images are (36, N * tiles, C): one matrix
for each of the 6x6 points, so that a convolution becomes 36 products of matrices.

Source: Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", section 4.3.
"""

from __future__ import annotations

import numba
import numpy as np

LANES = 32  # channels per pass: four vectors of eight
_F = np.float32
_jit = numba.njit(fastmath=True, nogil=True, cache=True, boundscheck=False)


@_jit
def _points_of_input(a, out):
    """B^T a: 6 pixels -> 6 points."""
    for c in range(LANES):
        a0, a1, a2, a3, a4, a5 = a[0, c], a[1, c], a[2, c], a[3, c], a[4, c], a[5, c]
        out[0, c] = _F(4) * a0 - _F(5) * a2 + a4
        even, odd = a4 - _F(4) * a2, a3 - _F(4) * a1
        out[1, c], out[2, c] = even + odd, even - odd
        even, odd = a4 - a2, _F(2) * (a3 - a1)
        out[3, c], out[4, c] = even + odd, even - odd
        out[5, c] = _F(4) * a1 - _F(5) * a3 + a5


@_jit
def _points_of_gradient(a, out):
    """A a: 4 gradients -> 6 points."""
    for c in range(LANES):
        a0, a1, a2, a3 = a[0, c], a[1, c], a[2, c], a[3, c]
        out[0, c] = a0
        even, odd = a0 + a2, a1 + a3
        out[1, c], out[2, c] = even + odd, even - odd
        even, odd = a0 + _F(4) * a2, _F(2) * a1 + _F(8) * a3
        out[3, c], out[4, c] = even + odd, even - odd
        out[5, c] = a3


@_jit
def _pixels(a, out):
    """A^T a: 6 points -> 4 pixels."""
    for c in range(LANES):
        near, far = a[1, c] + a[2, c], a[3, c] + a[4, c]
        near_odd, far_odd = a[1, c] - a[2, c], a[3, c] - a[4, c]
        out[0, c] = a[0, c] + near + far
        out[1, c] = near_odd + _F(2) * far_odd
        out[2, c] = near + _F(4) * far
        out[3, c] = near_odd + _F(8) * far_odd + a[5, c]


@_jit
def _load(image, row, column, channel, out):
    """`LANES` channels of a pixel; zero beyond the border."""
    if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
        for c in range(LANES):
            out[c] = image[row, column, channel + c]
    else:
        for c in range(LANES):
            out[c] = _F(0)


@_jit
def transform_input(images, points):
    """V = B^T d B for every tile d: (N, H, W, C) -> (36, N * tiles, C)."""
    n_images, height, width, channels = images.shape
    lines, line = np.empty((6, 6, LANES), _F), np.empty((6, LANES), _F)
    done = np.empty((6, LANES), _F)
    tile = 0
    for n in range(n_images):
        for i in range(0, height, 4):
            for j in range(0, width, 4):
                for channel in range(0, channels, LANES):
                    for v in range(6):
                        for u in range(6):
                            _load(images[n], i + u - 1, j + v - 1, channel, line[u])
                        _points_of_input(line, done)
                        for u in range(6):
                            for c in range(LANES):
                                lines[u, v, c] = done[u, c]
                    for u in range(6):
                        _points_of_input(lines[u], done)
                        for v in range(6):
                            for c in range(LANES):
                                points[u * 6 + v, tile, channel + c] = done[v, c]
                tile += 1


@_jit
def transform_gradient(gradients, points):
    """A g A^T for every tile g: (N, H, W, K) -> (36, N * tiles, K)."""
    n_images, height, width, channels = gradients.shape
    lines, line = np.empty((6, 4, LANES), _F), np.empty((4, LANES), _F)
    done = np.empty((6, LANES), _F)
    tile = 0
    for n in range(n_images):
        for i in range(0, height, 4):
            for j in range(0, width, 4):
                for channel in range(0, channels, LANES):
                    for v in range(4):
                        for u in range(4):
                            _load(gradients[n], i + u, j + v, channel, line[u])
                        _points_of_gradient(line, done)
                        for u in range(6):
                            for c in range(LANES):
                                lines[u, v, c] = done[u, c]
                    for u in range(6):
                        _points_of_gradient(lines[u], done)
                        for v in range(6):
                            for c in range(LANES):
                                points[u * 6 + v, tile, channel + c] = done[v, c]
                tile += 1


@_jit
def transform_output(points, images):
    """A^T m A for every tile m: (36, N * tiles, K) -> (N, H, W, K)."""
    n_images, height, width, channels = images.shape
    lines, line = np.empty((4, 6, LANES), _F), np.empty((6, LANES), _F)
    done = np.empty((4, LANES), _F)
    tile = 0
    for n in range(n_images):
        for i in range(0, height, 4):
            for j in range(0, width, 4):
                for channel in range(0, channels, LANES):
                    for v in range(6):
                        for u in range(6):
                            for c in range(LANES):
                                line[u, c] = points[u * 6 + v, tile, channel + c]
                        _pixels(line, done)
                        for u in range(4):
                            for c in range(LANES):
                                lines[u, v, c] = done[u, c]
                    for u in range(4):
                        _pixels(lines[u], done)
                        for v in range(4):
                            if i + u < height and j + v < width:
                                for c in range(LANES):
                                    images[n, i + u, j + v, channel + c] = done[v, c]
                tile += 1
