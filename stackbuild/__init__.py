"""stackbuild: The Stack-style datasets with an account of every file, and the StarCoder models trained on them."""

__version__ = "0.1.0"
