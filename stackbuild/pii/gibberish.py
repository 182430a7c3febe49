"""Whether a string looks drawn at random: the mean of -log p of its pairs of letters, in a model of pairs in texts.

The test of SantaCoder and StarCoder (starcoder1 2.2, starcoder2 6): the package gibberish-detector on the lower-cased
value. Their model, trained on a large English text with the limit 4.0, lies in no package; a recipe may name that file
(`gibberish_model`). Without one it is the model that detect-secrets brings, of RFCs, with that package's own limit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from stackbuild.errors import InputError, MissingDependency
from stackbuild.pii.extras import EXTRA

PUBLISHED_LIMIT: Final = 4.0
BUNDLED_LIMIT: Final = 3.7
LARGEST: Final = 16_000_000  # bytes of a model's file: the published one has 26,295


class Gibberish:
    """A model of pairs of characters, as `gibberish-detector train` writes it (JSON: charset, ngram_size, counts).

    `limit`: what scores more is gibberish. InputError for a file that is no such model.
    """

    def __init__(self, path: Path, limit: float):
        self.limit = limit
        try:
            raw = path.read_bytes() if path.stat().st_size <= LARGEST else b""
            if not raw:
                raise ValueError("it is empty or too large")
            self.digest = hashlib.sha256(raw).hexdigest()
            data = json.loads(raw)
            self.charset = frozenset(data["charset"])
            if data.get("ngram_size", 2) != 2 or not self.charset:
                raise ValueError("it is not of pairs of characters")
            self.costs: dict[str, dict[str, float]] = {}
            for first in self.charset:
                row = {second: int(data["counts"][first][second]) for second in self.charset}
                if min(row.values()) <= 0:
                    raise ValueError(f"the counts behind {first!r} are not all positive")
                total = sum(data["counts"][first].values())
                self.costs[first] = {second: -math.log(count / total) for second, count in row.items()}
                if not all(map(math.isfinite, self.costs[first].values())):
                    raise ValueError(f"the counts behind {first!r} are no numbers")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
            why = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path} is no model of gibberish-detector: {why}.") from error

    def score(self, value: str) -> float:
        """Mean cost of the pairs of characters of the model's alphabet; 0 if there is none."""
        known = [char for char in value if char in self.charset]
        if len(known) < 2:
            return 0.0
        return sum([self.costs[a][b] for a, b in itertools.pairwise(known)]) / (len(known) - 1)

    def is_gibberish(self, value: str) -> bool:
        """Whether the lower-cased value looks drawn at random."""
        return self.score(value.lower()) > self.limit


@lru_cache(4)
def model(path: str | os.PathLike[str] | None = None) -> Gibberish:
    """The model of a file with the published limit, or the one that detect-secrets brings; read once for a process.

    InputError for a file that is none, MissingDependency without detect-secrets.
    """
    return Gibberish(Path(path), PUBLISHED_LIMIT) if path else Gibberish(bundled(), BUNDLED_LIMIT)


@cache
def bundled() -> Path:
    """The file in the package detect-secrets, which is not imported for it. MissingDependency if it is not there."""
    spec = find_spec("detect_secrets")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(f"The test for gibberish needs the model that detect-secrets brings: {EXTRA}")
    return Path(spec.submodule_search_locations[0], "filters", "gibberish", "rfc.model")
