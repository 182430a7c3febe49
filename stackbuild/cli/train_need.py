"""What the trainer needs beside a plain installation."""

from __future__ import annotations

import os
from importlib.util import find_spec

from stackbuild.errors import MissingDependency

# Of libgomp's 300,000 a quiet machine gains up to 10 % on a tiny model, and a busy one loses half.
SPINS = "30000"


def need_torch() -> None:
    """Before torch is imported. MissingDependency, with the extra's name, where torch or safetensors are not installed.

    Threads of matrix products that wait go to sleep soon, unless the environment says how they wait: where other programs want the
    same cores, spinning for long makes a step take two to four times as long (measured). The results are the same.
    """
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"Training needs {' and '.join(missing)}, which a plain installation leaves out: pip install 'stackbuild[train]'."
        )
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch loads its OpenMP
