"""Where numba keeps the kernels that it has compiled: a folder can always be had, so that importing them never fails.

numba looks in NUMBA_CACHE_DIR, beside the source and in the user's cache folder, and raises where it may write to none of
them: a package that root installed, and a home that is not there, as in many containers and batch jobs. For that case
NUMBA_CACHE_DIR becomes a folder of the user's own under the temporary files; child processes inherit it.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path


def provide_cache_folder(package: Path) -> None:
    """Set NUMBA_CACHE_DIR if numba would find no folder for the kernels of a package; to be called before it is
    imported.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if (given and _writable(given)) or _writable(package / "__pycache__") or _writable(Path(user, "numba")):
        return
    try:
        folder = _temporary_folder()
    except OSError:
        return  # nothing at all can be written to; numba says so where a kernel is needed
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:  # it has read the environment already
        sys.modules["numba"].config.CACHE_DIR = folder


def _writable(folder: str | Path) -> bool:
    """As numba finds out: the folder is made, and a file in it."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _temporary_folder() -> str:
    """One folder for each user, for what is compiled to be found again; a new one where its name is taken, since numba runs
    what it finds there.
    """
    folder = os.path.join(tempfile.gettempdir(), f"stackbuild-numba-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return tempfile.mkdtemp(prefix="stackbuild-numba-")
    return folder
