"""Padded rows on disk, read as a tensor: the system keeps in memory what is in use."""

import tempfile

import numpy as np
import torch
from torch import Tensor

from onerec.session_dataset.padding import Padded


class RowsOnDisk:
    """(S, width) int32, appended block by block to a file that has no name and ends with its use.

    A context manager. The file is made where `TMPDIR` says, which should be a disk.
    """

    def __init__(self, width: int) -> None:
        self._file, self._width = tempfile.TemporaryFile(), width

    def __enter__(self) -> "RowsOnDisk":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, rows: Padded) -> None:
        """Add (B, width) rows at the end."""
        self._file.write(np.ascontiguousarray(rows).data)

    def tensor(self) -> Tensor:
        """All rows, mapped; it stays valid after the block."""
        self._file.flush()
        shape = (self._file.tell() // (4 * self._width), self._width)
        if not shape[0]:  # an empty file cannot be mapped
            return torch.empty(shape, dtype=torch.int32)
        return torch.from_numpy(np.memmap(self._file, np.int32, mode="r+", shape=shape))
