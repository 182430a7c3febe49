"""Keeps a process of our own small: what no task of ours uses is not loaded, what is used no more is given back.

Only a process that is ours alone may do this: the command line's and its workers', never a library call.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType

# pyarrow imports pandas when it first meets a numpy array, if pandas is installed, and numba imports scipy's linear
# algebra. Together they take 0.7 seconds of CPU and 60 MB of every process.
UNUSED = frozenset({"pandas", "scipy.linalg"})

# Arrow's batches of some megabytes are given back and asked for again all the time: mimalloc, its default, keeps 30 MB more
# of them. Huge pages where the system allows them save half of the page faults.
ALLOCATOR = {
    "ARROW_DEFAULT_MEMORY_POOL": "jemalloc",
    "JE_ARROW_MALLOC_CONF": "metadata_thp:always,thp:always,dirty_decay_ms:3000",
}

# The same for numpy's arrays, which come from the C library: what is freed is kept up to some megabytes, or each array would
# be asked of the system and filled with zeros again, which is a third of all page faults. (glibc's mallopt; parameter, bytes)
KEPT_FREE = ((-1, 16 << 20), (-3, 8 << 20))  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD

COMPILER = "libllvmlite"
DONT_NEED = 4  # MADV_DONTNEED on Linux

_begun = False


class _Unused:
    """An import hook to which these modules are not installed."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name in UNUSED:
            raise ModuleNotFoundError(f"No module named {name!r}: this process leaves it out", name=name)


def begin() -> None:
    """What a process of ours does first, before pyarrow is imported: modules that nobody uses are not installed from here on,
    Arrow takes another allocator if the user chose none, and nobody looks for garbage while modules are loaded.
    """
    global _begun
    _begun = True
    if _Unused not in sys.meta_path:
        sys.meta_path.insert(0, _Unused)
    if sys.platform == "linux" and "pyarrow" not in sys.modules and "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        for name, value in ALLOCATOR.items():
            os.environ.setdefault(name, value)
    keep = getattr(ctypes.CDLL(None), "mallopt", None)
    if keep is not None:
        for parameter, size in KEPT_FREE:
            keep(parameter, size)
    gc.disable()


def settle() -> None:
    """Say, in a process that began so, that most is loaded: it is not searched for garbage again, and the compiler has loaded
    the kernels.
    """
    if not _begun:
        return
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    _forget_compiler()


def give_back_memory() -> None:
    """Return to the system what Arrow's pool and the C library keep of memory that is free: tasks follow each other in one
    process, and each is to stand on what it needs itself."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    settle()


def _forget_compiler() -> None:
    """Unmap the pages of LLVM's code, some 50 MB of each process. They are a file's and read-only: what is needed again, to load
    another kernel, is there again.
    """
    with suppress(OSError, AttributeError, ValueError):
        advise = ctypes.CDLL(None).madvise
        with open("/proc/self/maps") as maps:
            for line in maps:
                if COMPILER in line and " r-xp " in line:
                    start, stop = (int(end, 16) for end in line.split(" ", 1)[0].split("-"))
                    advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), DONT_NEED)
