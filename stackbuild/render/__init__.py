"""Files as training documents."""

from stackbuild.render.layouts import LAYOUTS, NONE, Layout, Rendered, star_buckets
from stackbuild.render.order import has_metadata, has_prefix, order_keys
from stackbuild.render.sentinels import FAMILIES, SANTACODER, STARCODER1, STARCODER2, STARCODER2_ALL

__all__ = [
    "FAMILIES",
    "LAYOUTS",
    "NONE",
    "SANTACODER",
    "STARCODER1",
    "STARCODER2",
    "STARCODER2_ALL",
    "Layout",
    "Rendered",
    "has_metadata",
    "has_prefix",
    "order_keys",
    "star_buckets",
]
