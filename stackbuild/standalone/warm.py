"""Imported once in the server that workers are forked from: the modules of all steps, with their compiled kernels."""

from stackbuild.standalone.lean import begin, settle

begin()

from stackbuild.dedup import clusters, links, members, pairs, unchanged, warming  # noqa: E402, F401
from stackbuild.standalone import deciding, dedup, reading  # noqa: E402, F401

warming.warm()
settle()
