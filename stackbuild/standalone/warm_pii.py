"""Imported once in the server that workers of redaction are forked from."""

from stackbuild.standalone.lean import begin, settle

begin()

from stackbuild.pii.stage import Pii  # noqa: E402
from stackbuild.standalone import redacting  # noqa: E402, F401

Pii().warm()
settle()
