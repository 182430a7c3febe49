"""Arrow IPC streams (`.arrow`), as the `datasets` library saves them: mapped into memory, never inflated.

A compressed buffer announces its own length, so a file of a megabyte can mean any size: streams with compressed bodies
are refused. That library writes none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyarrow as pa

from stackbuild.errors import InputError


def schema_of(path: str) -> pa.Schema:
    """The schema of a stream. InputError if it is none."""
    try:
        with pa.memory_map(path) as file, pa.ipc.open_stream(file) as reader:
            found = reader.schema
            len(found.names)  # raises for a name that is not UTF-8
            return found
    except MemoryError:  # Arrow's own is an ArrowException too
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path!r} is not an Arrow stream ({error})") from error


def batches(path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The named top-level columns of each batch, without a copy. InputError if the stream is damaged or compressed."""
    try:
        with pa.memory_map(path) as file:
            for message in pa.ipc.MessageReader.open_stream(file):
                if message.type == "record batch" and is_compressed(message.metadata.to_pybytes()):
                    raise InputError(f"{path!r} has compressed batches; save it without compression, or as Parquet")
            file.seek(0)
            with pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    batch.validate(full=True)
                    yield batch.select(columns)
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError) as error:
        raise InputError(f"{path!r} is damaged ({error}). Write it again, or leave it out.") from error


def is_compressed(metadata: bytes) -> bool:
    """Whether a record batch message (Message.fbs, a flatbuffer) has the field RecordBatch.compression."""

    def slot(table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        at = vtable + 4 + 2 * number
        offset = (
            struct.unpack_from("<H", metadata, at)[0]
            if at < vtable + struct.unpack_from("<H", metadata, vtable)[0]
            else 0
        )
        return table + offset if offset else 0

    message = struct.unpack_from("<I", metadata)[0]
    header = slot(message, 2)
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    return slot(batch, 3) != 0
