"""Where an encoder stands in a session: the path that an error names, and what is around it."""

from typing import Any

from asgi_sessions.errors import EncodeError

DEPTH = 255  # containers in one another, the session among them: all that packb reaches. unpackb reads 1022


class Trail:
    """Where a walk stands: the path that an error names, and the containers around it."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Any]] = []
        self._open: set[int] = set()

    def enter(self, value: Any) -> None:
        if id(value) in self._open:
            raise self.error("contains itself")
        if len(self._open) == DEPTH:
            raise self.error(f"is nested more than {DEPTH} deep")
        self._open.add(id(value))
        self._steps.append(("", None))

    def at(self, form: str, key: Any) -> None:
        self._steps[-1] = (form, key)

    def leave(self, value: Any) -> None:
        self._steps.pop()
        self._open.remove(id(value))

    def check(self, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self.error("has a lone surrogate, which is not text") from error
        return text

    def error(self, reason: str) -> EncodeError:
        return EncodeError("session" + "".join(show(form, key) for form, key in self._steps) + ": " + reason)


def show(form: str, key: Any) -> str:
    if form in ("", "{…}"):
        return form
    if form == "." and type(key) is str and key.isidentifier():
        return f".{key}"
    try:
        shown = repr(key)
    except Exception:  # noqa: BLE001  a user's object may raise anything, an int of many digits ValueError
        shown = f"<{type(key).__qualname__}>"
    if type(key) is str:
        shown = '"' + shown[1:-1].replace('"', '\\"') + '"'
    return f"[{shown}]"
