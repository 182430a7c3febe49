"""Contents from an object store, as a supply (`release.supply`)."""

from __future__ import annotations

from collections.abc import Iterator

from stackbuild.release.supply import Answer, Need


class Upstream:
    """A supply (`release.supply`) from a folder of objects, an HTTP(S) or an S3 address; unsigned unless asked otherwise.

    InputError if there is nothing at the address, TemporaryError (exit 75) if it refuses everything.
    """

    def __init__(self, url: str, signed: bool = False):
        from stackbuild.sources.swh.objects import open_store  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.store = open_store(url, signed=signed)

    def __call__(self, needs: Iterator[Need]) -> Iterator[Answer]:
        from stackbuild.sources.swh.fetch import FetchOptions, fetch  # type: ignore[import-not-found,import-untyped,unused-ignore]
        from stackbuild.sources.swh.objects import Wanted  # type: ignore[import-not-found,import-untyped,unused-ignore]

        wanted = (Wanted(need.blob_id, need.content_id, need.length) for need in needs)
        for found in fetch(self.store, wanted, options=FetchOptions()):
            yield Answer(found.state, found.data)
