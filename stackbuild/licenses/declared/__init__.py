"""What files that are no licence texts declare of licences: manifests, REUSE, debian/copyright, read-mes.

`declaring_kind` finds them by name, `declarations` reads one, `matching` and `governing` apply path rules, `resolve` reads
free text. All are functions of their arguments.
"""

from stackbuild.licenses.declared.declaration import Declaration
from stackbuild.licenses.declared.formats import declarations, declaring_kind, spoken_for
from stackbuild.licenses.declared.globs import governing, matching
from stackbuild.licenses.declared.resolve import resolve, scancode_engine

__all__ = [
    "Declaration",
    "declarations",
    "declaring_kind",
    "governing",
    "matching",
    "resolve",
    "scancode_engine",
    "spoken_for",
]
