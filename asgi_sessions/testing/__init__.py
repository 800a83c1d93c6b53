"""What tests need: the proof of a store, and a client that is logged in. Needs pytest."""

from asgi_sessions.testing._client import TestingClient, logged_in, logged_in_async
from asgi_sessions.testing._conformance import StoreConformance, every, new_record, successor, together

__all__ = [
    "StoreConformance",
    "TestingClient",
    "every",
    "logged_in",
    "logged_in_async",
    "new_record",
    "successor",
    "together",
]
