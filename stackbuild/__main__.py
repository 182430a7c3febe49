"""`python -m stackbuild` is the command `stackbuild`."""

from stackbuild.cli import main

main()
