"""stackbuild: The Stack-style datasets with an account of every file, and the StarCoder models trained on them."""

from pathlib import Path

from stackbuild.kernel_cache import provide_cache_folder

__version__ = "0.1.0"

provide_cache_folder(Path(__file__).parent)
