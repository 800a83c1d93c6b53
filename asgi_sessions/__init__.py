"""Server-side sessions for ASGI applications."""

from importlib.metadata import version

from asgi_sessions._codec import AnyCodec, Codec
from asgi_sessions._config import Config
from asgi_sessions._draft import Answer, Expire, Issue
from asgi_sessions._events import Event, EventName
from asgi_sessions._extractors import Answers, Extractor, bearer, cookie, header, query
from asgi_sessions._json_codec import JSONCodec
from asgi_sessions._manager import SessionManager
from asgi_sessions._middleware import SessionMiddleware, session_from
from asgi_sessions._record import Limit, Record
from asgi_sessions._session import Flash, Session
from asgi_sessions.stores._base import LimitsUsers, NeverWaits, Store, Watches

__version__ = version("asgi-sessions")

__all__ = [
    "Answer",
    "Answers",
    "AnyCodec",
    "Codec",
    "Config",
    "Event",
    "EventName",
    "Expire",
    "Extractor",
    "Flash",
    "Issue",
    "JSONCodec",
    "Limit",
    "LimitsUsers",
    "NeverWaits",
    "Record",
    "Session",
    "SessionManager",
    "SessionMiddleware",
    "Store",
    "Watches",
    "bearer",
    "cookie",
    "header",
    "query",
    "session_from",
]
