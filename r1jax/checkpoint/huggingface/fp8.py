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

    What ``dequantise`` makes of them gives the same codes and scales again: a float32 ``s`` that is some ``x / 448`` rounded is
    also ``448 s / 448`` with each step rounded (``7 s`` is either ``x`` again, or has an error under half an ulp of ``s`` times 7).
    """
    matrix = np.asarray(matrix, np.float32)
    (rows, columns), (down, across) = matrix.shape, block.grid(matrix.shape)
    padded = np.zeros((down * block.rows, across * block.columns), np.float32)
    padded[:rows, :columns] = matrix
    blocks = padded.reshape(down, block.rows, across, block.columns)
    largest = np.abs(blocks).max((1, 3))
    # A subnormal scale would be flushed to zero by some readers.
    scales = np.maximum(np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1)), np.finfo(np.float32).tiny)
    codes = np.clip(blocks / scales[:, None, :, None], -LARGEST, LARGEST).astype(FP8)
    return np.ascontiguousarray(codes.reshape(padded.shape)[:rows, :columns]), scales
