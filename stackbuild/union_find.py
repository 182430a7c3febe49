"""Connected components of numbered nodes in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel

Numbers = npt.NDArray[np.int64]


@kernel
def join(parents: Numbers, left: Numbers, right: Numbers) -> None:
    """Union-find: merge the trees of each pair of nodes; the smaller root stays. `parents`: int64 (n,), changed in
    place.
    """
    for pair in range(len(left)):
        i, j = left[pair], right[pair]
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        while parents[j] != j:
            parents[j] = parents[parents[j]]
            j = parents[j]
        if i < j:
            parents[j] = i
        else:
            parents[i] = j


@kernel
def roots(parents: Numbers) -> Numbers:
    """The smallest node of each node's tree, int64 (n,)."""
    result = np.empty_like(parents)
    for node in range(len(parents)):
        result[node] = node if parents[node] == node else result[parents[node]]
    return result


def components(nodes: int, left: Numbers, right: Numbers) -> Numbers:
    """The smallest node of each node's connected component, int64 (nodes,)."""
    parents = np.arange(nodes, dtype=np.int64)
    join(parents, left, right)
    return np.asarray(roots(parents))
