"""Block-quantised FP8 weights: one float32 scale for each block of a matrix, 128 x 128 in DeepSeek's checkpoints.

``weight = fp8 * weight_scale_inv`` of its block, in float32 (the "inverse" is a multiplier). At a ragged edge a block is cut
short: the grid of scales has ``ceil(size / block)`` entries. arXiv 2412.19437 section 3.3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import ml_dtypes
import numpy as np

FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
SCALE_DTYPES = tuple(np.dtype(name) for name in (np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e8m0fnu))
LARGEST = 448.0  # of e4m3
SCALE_SUFFIX = "_scale_inv"

_VALUES = np.arange(256, dtype=np.uint8).view(FP8).astype(np.float32)  # of each code: a table is faster than ml_dtypes' cast


class Block(NamedTuple):
    """Rows and columns that share a scale."""

    rows: int
    columns: int

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The shape of the scales of a matrix."""
        return math.ceil(shape[0] / self.rows), math.ceil(shape[1] / self.columns)

    def scales_of(self, index: tuple[slice, slice]) -> tuple[slice, slice]:
        """The part of the scales that a part of the matrix needs."""
        return tuple(slice(part.start // size, math.ceil(part.stop / size)) for part, size in zip(index, self))


DEEPSEEK_BLOCK = Block(128, 128)


def dequantise(codes: np.ndarray, scales: np.ndarray, block: Block, index: tuple[slice, slice]) -> np.ndarray:
    """A part of a matrix in float32.

    Args:
      codes: FP8, the matrix at ``index``.
      scales: those at ``block.scales_of(index)``.
    """
    values = np.take(_VALUES, codes.view(np.uint8))
    rows, columns = (np.arange(part.start, part.stop) // size - part.start // size for part, size in zip(index, block))
    scales = scales.astype(np.float32)[:, columns]  # [blocks, C]
    ends = np.searchsorted(rows, np.arange(len(scales) + 1))
    for row, (start, stop) in enumerate(zip(ends, ends[1:])):
        values[start:stop] *= scales[row]
    return values


def quantise(matrix: np.ndarray, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """``(FP8 [R, C], scales float32 [ceil, ceil])``; a block's largest magnitude becomes 448, and a block of zeros has scale 1.

    What ``dequantise`` made in float32 of scales with which it is reproduced bit for bit gives these codes and scales again:
    ``largest / 448`` rounds to a neighbour of the true scale in one of ten blocks, so the neighbours are tried where that one
    leaves a difference of rounding alone.
    """
    matrix = np.asarray(matrix, np.float32)
    (rows, columns), (down, across) = matrix.shape, block.grid(matrix.shape)
    padded = np.zeros((down * block.rows, across * block.columns), np.float32)
    padded[:rows, :columns] = matrix
    blocks = padded.reshape(down, block.rows, across, block.columns).swapaxes(1, 2)
    largest = np.abs(blocks).max((2, 3))
    scales = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1))
    scales = np.maximum(scales, np.finfo(np.float32).tiny)  # a subnormal scale would be flushed to zero by some readers
    codes, error = _rounded(blocks, scales)
    near = (error > 0) & (error <= largest * np.float32(2.0**-21))
    for towards in (np.float32(0), np.float32(np.inf)):
        if not near.any():
            break
        places = np.nonzero(near)
        tried = np.nextafter(scales[places], towards)
        again, left = _rounded(blocks[places], tried)
        exact = left == 0
        places = tuple(place[exact] for place in places)
        codes[places], scales[places], near[places] = again[exact], tried[exact], False
    codes = codes.swapaxes(1, 2).reshape(padded.shape)[:rows, :columns]
    return np.ascontiguousarray(codes), scales


def _rounded(blocks: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of ``blocks [..., R, C]`` for ``scales [...]``, and of each block the largest error ``[...]``."""
    scales = scales[..., None, None]
    codes = np.clip(blocks / scales, -LARGEST, LARGEST).astype(FP8)
    return codes, np.abs(np.take(_VALUES, codes.view(np.uint8)) * scales - blocks).max((-2, -1), initial=0)
