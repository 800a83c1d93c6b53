"""The SQL of a SQLite store, and what goes in and comes out. Times are microseconds since 1970."""
# ruff: noqa: S608  all that is ever put into a statement is the name of its table, an identifier

import re
from typing import Any

from asgi_sessions._clock import from_microseconds, to_microseconds
from asgi_sessions._record import Record
from asgi_sessions.errors import ConfigError

COLUMNS = ("id", "data", "version", "created_at", "seen_at", "expires_at", "user_id")
MARK_COLUMNS = ("user_id", "at", "keep")
_LISTED = ", ".join(COLUMNS)


class Statements:
    """The statements over one table, with named parameters."""

    def __init__(self, table: str) -> None:
        """Quote *table*, an ASCII identifier."""
        if not re.fullmatch(r"(?!sqlite_)[a-z_][a-z0-9_]*", table, re.ASCII | re.IGNORECASE):
            raise ConfigError(f"table={table!r} is not an ASCII identifier such as app_sessions, free of sqlite_")
        here, marks = f'"{table}"', f'"{table}_revoked"'
        marked = f"""EXISTS (
            SELECT 1 FROM {marks} WHERE user_id = :user_id AND at >= :seen_at AND keep IS NOT :id
        )"""
        # The plus keeps SQLite from reading by expiry: nearly every row has not expired.
        others = "user_id = :user_id AND id <> :id AND +expires_at > :now"
        has_room = f"""(
            :room IS NULL OR :user_id IS NULL OR (SELECT count(*) FROM {here} WHERE {others}) < :room
        )"""

        self.ddl = f"""\
CREATE TABLE IF NOT EXISTS {here} (
    id TEXT PRIMARY KEY NOT NULL,
    data BLOB NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    user_id TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS "{table}_expires_at" ON {here} (expires_at);
CREATE INDEX IF NOT EXISTS "{table}_user_id" ON {here} (user_id, id) WHERE user_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS {marks} (
    user_id TEXT PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    keep TEXT
) STRICT;
"""
        self.table = table
        self.tables = ((table, COLUMNS), (f"{table}_revoked", MARK_COLUMNS))
        self.ping = f"SELECT 1 FROM {here} LIMIT 1"
        self.load = f"SELECT {_LISTED} FROM {here} WHERE id = :id AND expires_at > :now"
        # The first page has its own form: any text may be an ID, also the empty one.
        page = f"SELECT {_LISTED} FROM {here} WHERE {{}} AND +expires_at > :now ORDER BY id LIMIT :limit"
        self.first_page, self.next_page = page.format("id >= ''"), page.format("id > :after")
        self.first_page_of_user = page.format("user_id = :user_id")
        self.next_page_of_user = page.format("user_id = :user_id AND id > :after")

        self.create = f"""
            INSERT INTO {here} ({_LISTED})
            SELECT :{_LISTED.replace(", ", ", :")} WHERE NOT {marked} AND {has_room}
        """
        self.update = f"""
            UPDATE {here} SET data = :data, version = :version, created_at = :created_at, seen_at = :seen_at,
                expires_at = :expires_at, user_id = :user_id
            WHERE id = :id AND version = :expected AND expires_at > :now
                AND (user_id IS :user_id OR (NOT {marked} AND {has_room}))
        """
        self.touch = f"""
            UPDATE {here} SET expires_at = max(expires_at, :expires_at), seen_at = max(seen_at, :seen_at)
            WHERE id = :id AND version = :expected AND expires_at > :now
        """
        self.delete = f"""
            DELETE FROM {here} WHERE id = :id AND (:expected IS NULL OR version = :expected) RETURNING expires_at > :now
        """
        self.delete_expired = f"DELETE FROM {here} WHERE id = :id AND expires_at <= :now"
        self.delete_user = f"""
            DELETE FROM {here} WHERE user_id = :user_id AND id IS NOT :keep RETURNING expires_at > :now
        """
        self.delete_some = f"""
            DELETE FROM {here} WHERE rowid IN (SELECT rowid FROM {here} LIMIT :limit) RETURNING expires_at > :now
        """
        # To leave room for one more of :room, all but :room - 1 have to go.
        self.make_room = f"""
            DELETE FROM {here} WHERE rowid IN (
                SELECT rowid FROM {here} WHERE {others} ORDER BY created_at, id
                LIMIT max(0, (SELECT count(*) FROM {here} WHERE {others}) - :room + 1)
            )
        """
        self.sweep = f"""
            DELETE FROM {here} WHERE rowid IN (
                SELECT rowid FROM {here} WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit
            )
        """
        self.is_marked = f"SELECT {marked}"
        # A user whose name no text column can hold has no sessions: nothing to mark.
        self.mark = f"""
            INSERT INTO {marks} (user_id, at, keep) SELECT :user_id, :now, :keep WHERE :user_id IS NOT NULL
            ON CONFLICT (user_id) DO UPDATE SET at = max(at, excluded.at), keep = excluded.keep
        """
        self.sweep_marks = f"DELETE FROM {marks} WHERE at < :yesterday"


def bindable(text: str | None) -> str | None:
    """Return *text*, or None where it is no Unicode text: `id = NULL` matches no row, which is the right answer."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return None
    return text


def to_parameters(record: Record) -> dict[str, Any]:
    """Return the columns of *record*."""
    return {
        "id": record.id,
        "data": record.data,
        "version": record.version,
        "created_at": to_microseconds(record.created_at),
        "seen_at": to_microseconds(record.seen_at),
        "expires_at": to_microseconds(record.expires_at),
        "user_id": record.user_id,
    }


def to_record(row: tuple[Any, ...]) -> Record:
    """Return the record of a row of `COLUMNS`."""
    return Record(
        id=row[0],
        data=row[1],
        version=row[2],
        created_at=from_microseconds(row[3]),
        seen_at=from_microseconds(row[4]),
        expires_at=from_microseconds(row[5]),
        user_id=row[6],
    )
