"""Fixtures of the tests of objects; a file that needs others has its own."""

from __future__ import annotations

import pytest
from squares import counted_session, scene_maker


@pytest.fixture
def session(tiny_bundle):
    return counted_session(tiny_bundle)


@pytest.fixture
def scene():
    """See `scene_maker`: scene({(x, y): colour}, seed)."""
    return scene_maker()
