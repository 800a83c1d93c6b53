"""The stores that come with the package, and the contract that others fulfil."""

from asgi_sessions._record import Limit, Record
from asgi_sessions.stores._base import LimitsUsers, NeverWaits, Store, Watches
from asgi_sessions.stores._urls import store_from_url
from asgi_sessions.stores.memory import MemoryStore
from asgi_sessions.stores.sqlite import SQLiteStore

__all__ = [
    "Limit",
    "LimitsUsers",
    "MemoryStore",
    "NeverWaits",
    "Record",
    "SQLiteStore",
    "Store",
    "Watches",
    "store_from_url",
]
