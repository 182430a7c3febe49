"""What tests of licences share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def text_of() -> Any:
    """The text of a licence by ScanCode's key."""
    from licensedcode.cache import get_licenses_db

    return lambda key: get_licenses_db()[key].text
