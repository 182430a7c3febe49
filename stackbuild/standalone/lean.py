"""Keeps a process of our own from loading what no task of ours uses.

pyarrow imports pandas when it first meets a numpy array, if pandas is installed, and numba imports scipy's linear algebra.
Together they take 0.7 seconds of CPU and 60 MB of every process. Only a process that is ours alone may do this: the command
line's and its workers', never a library call.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from types import ModuleType

UNUSED = frozenset({"pandas", "scipy.linalg"})


class _Unused:
    """An import hook to which these modules are not installed."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name in UNUSED:
            raise ModuleNotFoundError(f"No module named {name!r}: this process leaves it out", name=name)


def give_back_memory() -> None:
    """Return to the system what Arrow's pool and the C library keep of memory that is free: tasks follow each other in one
    process, and each is to stand on what it needs itself."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def leave_out_unused() -> None:
    """Make an import of what is not loaded yet fail, as if it were not installed."""
    if _Unused not in sys.meta_path:
        sys.meta_path.insert(0, _Unused)
