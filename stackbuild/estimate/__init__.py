"""The scale model of `stackbuild plan --estimate`: sizes, rates, and what they make of a cluster. See docs/scale.md."""
