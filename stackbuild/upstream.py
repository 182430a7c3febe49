"""What is fetched from elsewhere: contents from an object store, published tables from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError, StackbuildError, TemporaryError
from stackbuild.release.published import Input, local_inputs
from stackbuild.wanted import STATES, Fetched, Wanted

HUB = "hf://"
CLIENTS = ("httpx", "httpx2", "httpcore", "requests", "huggingface_hub")


class Upstream:
    """A supply (`release.supply`) from a folder of objects, an HTTP(S) or an S3 address; unsigned unless asked otherwise.

    `cache`: a folder of contents that came before, of whatever store, which are not asked for; what comes is kept there. What did not
    come is asked for each time. InputError if there is nothing at the address, TemporaryError (exit 75) if it refuses everything.
    """

    def __init__(self, url: str, signed: bool = False, cache: Path | None = None):
        from stackbuild.sources.swh.objects import open_store

        self.store, self.cache = open_store(url, signed=signed), cache

    def __call__(self, wanted: Iterator[Wanted]) -> Iterator[Fetched]:
        from stackbuild.sources.swh.fetch import fetch
        from stackbuild.sources.swh.packed import PackedCache, fetch_cached

        if self.cache is None:
            return fetch(self.store, wanted)
        return fetch_cached(self.store, wanted, PackedCache(self.cache), again=STATES)


def published_inputs(source: str) -> list[Input]:
    """The Parquet files below a folder, a file, or hf://datasets/owner/name[/path]; InputError if there are none."""
    if not source.startswith(HUB):
        path = Path(source).expanduser()
        if not path.exists():
            raise InputError(f"{source} is not there.")
        return local_inputs(path)
    from huggingface_hub import HfFileSystem

    return hub_inputs(source, HfFileSystem())


def hub_inputs(source: str, files: Any) -> list[Input]:
    """The same of an address of the Hub, through a file system of fsspec."""
    root = source.removeprefix(HUB).rstrip("/")
    with hub(source):
        found = sorted(files.find(root)) if files.isdir(root) else [root] if files.isfile(root) else []
    paths = [path for path in found if path.endswith(".parquet")]
    if not paths:
        raise InputError(f"{source} holds no Parquet files.")
    base = root if len(paths) > 1 or paths[0] != root else root.rpartition("/")[0]
    return [Input(path.removeprefix(f"{base}/"), partial(files.open, path, "rb")) for path in paths]


@contextmanager
def hub(source: str) -> Iterator[None]:
    """What the Hub refuses is an InputError, what the network does a TemporaryError. Its client has errors of many kinds, some
    of the HTTP library that it happens to use: those are told by where they come from."""
    try:
        yield
    except Exception as error:
        if isinstance(error, StackbuildError) or not (
            isinstance(error, OSError) or type(error).__module__.split(".")[0] in CLIENTS
        ):
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise InputError(
                f"{source} cannot be read ({status}): accept the dataset's terms on its page and run `hf auth login`."
            ) from error
        words = str(error).splitlines() or [type(error).__name__]
        raise TemporaryError(f"{source} cannot be read now: {words[0]}") from error
