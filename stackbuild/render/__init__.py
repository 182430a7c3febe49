"""Repositories as training text."""

from stackbuild.render.repository import File, Role, Segment, has_metadata, order_keys, render
from stackbuild.render.sentinels import FAMILIES, SANTACODER, STARCODER1, STARCODER2, STARCODER2_ALL

__all__ = [
    "FAMILIES",
    "SANTACODER",
    "STARCODER1",
    "STARCODER2",
    "STARCODER2_ALL",
    "File",
    "Role",
    "Segment",
    "has_metadata",
    "order_keys",
    "render",
]
