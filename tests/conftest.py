"""
What every test has: the two event loops, a clock, a store, a manager, and how hard hypothesis tries.

Rule 1: no servers here; a store's own needs stand beside its tests.
"""

import os
from collections.abc import AsyncIterator

import hypothesis
import pytest

from asgi_sessions import Config, SessionManager
from tests.support import Clock, TappedStore, opened

# A slow machine is no failure: pytest-timeout ends what hangs. A failure prints the line that replays it.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("default"), derandomize=True)
hypothesis.settings.register_profile("thorough", parent=hypothesis.settings.get_profile("default"), max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(params=["asyncio", "trio"], scope="module")
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """
    Run each async test on both event loops.

    A file whose driver knows only asyncio overrides this fixture with one that returns "asyncio", and says why.
    """
    backend: str = request.param
    return backend


@pytest.fixture
def clock() -> Clock:
    """Return the time of this test."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> TappedStore:
    """Return a store that counts its calls, and can be held up."""
    return TappedStore(clock)


@pytest.fixture
async def manager(store: TappedStore, clock: Clock) -> AsyncIterator[SessionManager]:
    """Return a manager with the defaults."""
    async with opened(Config(store=store), clock) as manager:
        yield manager
