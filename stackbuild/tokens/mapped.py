"""Memory maps of whole files that hold no open file.

Python's `mmap`, and `numpy.memmap` with it, keeps a descriptor open for each map, so that a corpus of some hundred shards is
more files than a process may usually have open (1,024). The kernel does not need it: here the file is closed once it is
mapped, and only `vm.max_map_count` (65,530 by default) bounds the number of maps.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


class _Map:
    """The bytes of a file, unmapped when no array looks at them any more."""

    def __init__(self, path: str, size: int):
        handle = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(handle).st_size < size:  # reading behind the end of a file is the end of the process
                raise OSError(errno.EIO, f"it has fewer than {size:,} bytes", path)
            address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
            error = ctypes.get_errno()
        finally:
            os.close(handle)
        if address == _FAILED:
            raise OSError(error, os.strerror(error), path)
        self._address, self._size = address, size
        # Not when the interpreter ends: something may still read then, and the system unmaps it all.
        weakref.finalize(self, _libc.munmap, address, size).atexit = False

    @property
    def __array_interface__(self) -> Mapping[str, Any]:
        return {"version": 3, "data": (self._address, True), "shape": (self._size,), "typestr": "|u1"}

    def forget(self) -> None:
        """Let go of the pages that were read."""
        _libc.madvise(self._address, self._size, mmap.MADV_DONTNEED)


def mapped(path: str | Path, size: int) -> npt.NDArray[np.uint8]:
    """The first `size` bytes of a file, which it must have: uint8 of shape (size,), read-only.

    It stays mapped as long as an array looks at it. InputError if it cannot be read, or there are too many maps.
    """
    if size == 0:  # an empty map is an error of the operating system
        return np.empty(0, np.uint8)
    try:
        return np.asarray(_Map(str(path), size))
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise InputError(
                f"{path}: cannot be mapped into memory: the process has too many maps, or no room for so large a one. Merge the "
                "shards (stackbuild tokens merge), or raise vm.max_map_count."
            ) from error
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def forget(array: npt.NDArray[Any]) -> None:
    """Let go of the pages of a mapped array that were read: a pass over it then holds no more than a block.

    They are read again when they are asked for. An array that is not mapped is left alone.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, _Map):
        base.forget()
