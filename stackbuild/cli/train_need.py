"""What the trainer needs beside a plain installation."""

from __future__ import annotations

import os
from importlib.util import find_spec

from stackbuild.errors import MissingDependency


def need_torch() -> None:
    """Before torch is imported. MissingDependency, with the extra's name, where torch or safetensors are not installed.

    Threads of matrix products wait asleep, unless the environment says how: where other programs, or the loader, want the same
    cores, spinning makes a step take two to four times as long (measured); the results are the same.
    """
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"Training needs {' and '.join(missing)}, which a plain installation leaves out: pip install 'stackbuild[train]'."
        )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads its OpenMP
