"""
Everything that can go wrong, as one tree.

    SessionError
    ├── ConfigError                 a setting that cannot work, with the fix
    │   ├── MiddlewareMissingError  a session was asked for where no middleware put one
    │   └── UnsupportedError        the store lacks what was asked of it
    ├── StoreUnavailableError       the store did not answer, or not in time (503)
    ├── CommitConflictError         other requests kept winning (409)
    ├── TooManySessionsError        the user has as many sessions as allowed (403)
    ├── RecordExistsError           `create` met a taken ID (store to manager, not for handlers)
    ├── EncodeError                 a value that cannot be kept, with its path
    ├── DecodeError                 bytes that are not a session
    ├── NotLoadedError              a lazy session was used before `await session.load()`
    ├── ResponseStartedError        a change that can no longer reach the client
    ├── TokenUndeliverableError     a new token that has no way back to the client
    └── SessionClosedError          a change after the request has ended

"No such session" is not an error: a session that is unknown, expired or ended reads as a stranger's.
"""


class SessionError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(SessionError, ValueError):
    """A setting that cannot work. The message names the field, the value and the fix."""


class MiddlewareMissingError(ConfigError):
    """A session was asked for where no `SessionMiddleware` has put one."""


class UnsupportedError(ConfigError):
    """The store lacks a capability that was asked of it. The message names both."""


class StoreUnavailableError(SessionError):
    """The store did not answer, or not in time. The driver's own error is chained as the cause."""


class CommitConflictError(SessionError):
    """Other requests changed the session first, again and again, or `conflicts="raise"` forbids to merge."""


class TooManySessionsError(SessionError):
    """The user already has as many sessions as `max_sessions_per_user` allows, and `when_full` is "refuse"."""


class RecordExistsError(SessionError):
    """`Store.create` was given an ID that is taken. A store raises it, the manager handles it."""


class EncodeError(SessionError, ValueError):
    """A session that cannot be kept: a value of an unsupported type, a cycle, too deep, or too large."""


class DecodeError(SessionError, ValueError):
    """Bytes that are not an encoded session: corrupt, foreign, or of a newer version."""


class NotLoadedError(SessionError):
    """A session of `Config(load="lazy")` was used before `await session.load()`."""


class ResponseStartedError(SessionError):
    """The response has started, so that no new token can reach the client."""


class TokenUndeliverableError(SessionError):
    """The session has a new token, but its extractors can only read. `await session.save()` returns the token."""


class SessionClosedError(SessionError):
    """The session can no longer be changed: its request has ended, or it came from a listing."""


class SessionWarning(UserWarning):
    """A setting or a request that works, and is a risk. Shown once."""
