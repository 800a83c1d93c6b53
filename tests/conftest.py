"""
What every test has: the two event loops, and how hard hypothesis tries.

Rule 1: no servers here; a store's own needs stand beside its tests.
"""

import os

import hypothesis
import pytest

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
