from __future__ import annotations

import pyarrow as pa


class HeaderReader:
    def read(self, contents: pa.Array) -> pa.Array:
        raise NotImplementedError
