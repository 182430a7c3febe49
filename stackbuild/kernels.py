"""Compiled kernels, and where they are kept: found again by every process, never stale, and runnable where nothing can be
written to.

numba keeps a kernel beside its source, and compiles it anew when that file changes; that it calls a kernel of another file
which changed, it does not see. So the folder that it is given here is named by the sources of the whole folder of modules.
It lies in the first place of these that can be written to: NUMBA_CACHE_DIR, `__pycache__` beside the source, the user's
cache folder, a folder of the user's own under the temporary files. Where none can be, kernels are compiled in memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

KEPT = 3  # folders of other sources (an older version, a branch) that are left beside the newest

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile a function with numba (nopython, without the GIL), once for all processes."""
    import numba

    folder = kernel_folder(Path(function.__code__.co_filename).parent)
    config: Any = numba.config
    numbas = config.CACHE_DIR
    try:
        if folder is not None:
            config.CACHE_DIR = folder  # read where the decorator is applied
        compiled: Any = numba.njit(cache=folder is not None, nogil=True)(function)
    finally:
        config.CACHE_DIR = numbas
    return cast("Function", compiled)


@cache
def kernel_folder(sources: Path) -> str | None:
    """Where the compiled kernels of a folder of modules are kept; None if nothing can be written to."""
    digest = hashlib.sha256()
    for path in sorted(sources.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    name = f"kernels-{digest.hexdigest()[:16]}"
    given = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    # Folders of modules do not share a place, in which they would take one another for other sources of their own.
    for place in (
        *([Path(given) / sources.name] if given else []),
        sources / "__pycache__",
        user / "stackbuild" / sources.name,
    ):
        if (place / name).is_dir() and os.access(place / name, os.W_OK):
            return str(place / name)
        if _writable(place / name):
            _leave(place, name)
            return str(place / name)
    with suppress(OSError):
        return str(Path(_temporary_folder(), name))
    return None


def _writable(folder: Path) -> bool:
    """As numba finds out: the folder is made, and a file in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _leave(place: Path, name: str) -> None:
    """Remove what was compiled of the oldest other sources."""
    with suppress(OSError):
        others = sorted((p for p in place.glob("kernels-*") if p.name != name), key=lambda p: p.stat().st_mtime)
        for path in others[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def _temporary_folder() -> str:
    """One folder for each user, for what is compiled to be found again; a new one where its name is taken, since numba runs
    what it finds there.
    """
    folder = os.path.join(tempfile.gettempdir(), f"stackbuild-kernels-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return tempfile.mkdtemp(prefix="stackbuild-kernels-")
    return folder
