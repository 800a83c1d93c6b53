"""
A small site with a log-in, on FastAPI.

    uvicorn examples.login:app

Then open http://127.0.0.1:8000. Sessions are kept in demo.db, or where `SESSION_STORE` says. It shows a counter and a
cart that lose nothing when two tabs are used at once, messages shown once, a log-in that replaces the token, and a page
of the user's devices that logs out any of them.
"""

import os
from datetime import datetime, timedelta
from html import escape
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from asgi_sessions import Config, Session, SessionManager, SessionMiddleware
from asgi_sessions.fastapi import CurrentSession

PASSWORD = "demo"
SEE_OTHER = 303  # the browser follows with a GET, so that reloading the page sends no form again


def refuse_foreign_forms(request: Request) -> None:
    """
    Refuse a form that another site has sent (CSRF).

    SameSite=Lax does most of it: browsers send our cookie with no foreign POST, and a GET does nothing here but count.
    What it leaves are other hosts of our own domain, and the log-in form, which works without a cookie: so what the
    browser says of the sender is checked, too.
    """
    if request.method != "POST":
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is None and origin is not None:  # a browser from before 2023
        site = "same-origin" if urlsplit(origin).netloc == request.headers.get("host") else "cross-site"
    if site not in ("same-origin", "none", None):  # None: no browser, so no user's cookie to abuse
        raise HTTPException(403, "This form came from another site.")


# A manager made by hand, because the devices page needs it, too. What stands in the environment wins over the default.
manager = SessionManager(Config.from_env({"SESSION_STORE": "sqlite:///demo.db", **os.environ}))
app = FastAPI(title="Demo", openapi_url=None, dependencies=[Depends(refuse_foreign_forms)])
app.add_middleware(SessionMiddleware, manager=manager)


def current_user(session: CurrentSession) -> str:
    """Return who is logged in; send everyone else to the log-in page."""
    if session.user_id is None:
        session.flash("Log in to see that page.")
        raise HTTPException(SEE_OTHER, headers={"Location": "/login"})
    return session.user_id


CurrentUser = Annotated[str, Depends(current_user)]


@app.get("/")
def home(session: CurrentSession) -> HTMLResponse:
    """Show the visits and the cart."""
    visits = session.increment("visits")  # an operation: two requests at once count two
    cart = session.get("cart", [])
    items = [f"<li>{escape(item)} {button('/cart/remove', 'Remove', item=item)}</li>" for item in cart]
    return page(
        session,
        "Home",
        f"<p>Visits in this session: <strong>{visits}</strong></p>",
        f"<h2>Cart</h2><ul>{''.join(items) or '<li>Nothing yet</li>'}</ul>",
        '<form method="post" action="/cart">',
        '<label>Item <input name="item" required maxlength="40"></label> <button>Add</button></form>',
    )


@app.post("/cart")
def add(session: CurrentSession, item: Annotated[str, Form(min_length=1, max_length=40)]) -> RedirectResponse:
    """Put an item into the cart."""
    session.append("cart", item)  # not `session["cart"] += [item]`: two at once both arrive
    session.flash(f"Added {item}.")
    return go_to("/")


@app.post("/cart/remove")
def remove(session: CurrentSession, item: Annotated[str, Form()]) -> RedirectResponse:
    """Take an item out of the cart, once; a second click finds nothing, which is fine."""
    session.discard("cart", item)
    return go_to("/")


@app.get("/login")
def log_in_page(session: CurrentSession) -> HTMLResponse:
    """Show the log-in form."""
    return page(
        session,
        "Log in",
        f"<p>This is a demo: any name will do, the password is <code>{PASSWORD}</code>.</p>",
        '<form method="post" action="/login">',
        '<p><label>Name <input name="name" required maxlength="40" autocomplete="username"></label></p>',
        '<p><label>Password <input name="password" type="password" required></label></p>',
        '<p><label><input name="remember" type="checkbox"> Remember me for 30 days</label></p>',
        "<p><button>Log in</button></p></form>",
    )


@app.post("/login")
def log_in(
    request: Request,
    session: CurrentSession,
    name: Annotated[str, Form(pattern=r"^[\w .@-]{1,40}$")],
    password: Annotated[str, Form()],
    remember: Annotated[bool, Form()] = False,  # noqa: FBT002 - a checkbox
) -> RedirectResponse:
    """Log in: the cart stays, the token is replaced, so that nobody can have planted it (session fixation)."""
    if password != PASSWORD:
        session.flash("That is not the password.", "error")
        return go_to("/login")
    session.login(name, remember=timedelta(days=30) if remember else None)
    session["browser"] = request.headers.get("user-agent", "unknown")[:200]  # for the devices page
    session.flash(f"Welcome, {name}.")
    return go_to("/")


@app.post("/logout")
def log_out(session: CurrentSession) -> RedirectResponse:
    """End this session. A request that is still under way cannot bring it back."""
    session.logout()
    return go_to("/")


@app.get("/devices")
async def devices(session: CurrentSession, user: CurrentUser) -> HTMLResponse:
    """List where the user is logged in."""
    rows = [device_row(each, this=session.id) async for each in manager.sessions(user_id=user)]
    return page(
        session,
        "Your devices",
        f"<table>{row('th', 'Browser', 'Since', 'Last seen', 'Log out')}{''.join(rows)}</table>",
        button("/devices/end-others", "Log out everywhere else"),
    )


@app.post("/devices/end")
async def end(session: CurrentSession, user: CurrentUser, device: Annotated[str, Form()]) -> RedirectResponse:
    """End one of the user's other sessions. Only the user's own are looked through: a stranger's ID finds nothing."""
    ended = await manager.revoke(user_id=user, where=lambda each: each.id == device, keep=session.id)
    session.flash("That device is logged out." if ended else "There is no such device.")
    return go_to("/devices")


@app.post("/devices/end-others")
async def end_others(session: CurrentSession, user: CurrentUser) -> RedirectResponse:
    """End all of the user's sessions but this one, those included that are about to begin."""
    ended = await manager.revoke(user_id=user, keep=session.id)
    session.flash(f"Other devices logged out: {ended}.")
    return go_to("/devices")


def go_to(path: str) -> RedirectResponse:
    """Answer a form."""
    return RedirectResponse(path, SEE_OTHER)


def device_row(device: Session, *, this: str) -> str:
    """Return one line of the devices page. It may show a session's ID: that opens nothing, only the token does."""
    browser, since, seen = escape(device.get("browser", "unknown")), moment(device.created_at), moment(device.last_seen)
    action = "this device" if device.id == this else button("/devices/end", "Log out", device=device.id)
    return row("td", browser, since, seen, action)


def row(cell: str, *contents: str) -> str:
    """Return a row of a table."""
    return "<tr>" + "".join(f"<{cell}>{each}</{cell}>" for each in contents) + "</tr>"


def moment(instant: datetime) -> str:
    """Return *instant* for people and for machines."""
    return f'<time datetime="{instant.isoformat()}">{instant:%Y-%m-%d %H:%M} UTC</time>'


def button(action: str, label: str, **fields: str) -> str:
    """Return a form of one button: what changes something is a POST."""
    hidden = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items())
    return f'<form method="post" action="{action}" class="inline">{hidden}<button>{label}</button></form>'


def page(session: Session, title: str, *parts: str) -> HTMLResponse:
    """Return a whole page, with the messages that wait to be shown."""
    user = session.user_id
    account = '<a href="/login">Log in</a>' if user is None else f"{escape(user)} {button('/logout', 'Log out')}"
    messages = [f'<p role="status" class="{each.category}">{escape(each.message)}</p>' for each in session.flashes()]
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<header><nav><a href="/">Home</a> <a href="/devices">Your devices</a></nav><div>{account}</div></header>'
        f"<main><h1>{title}</h1>{''.join(messages)}{''.join(parts)}</main></body></html>"
    )


STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 45rem; margin: auto; padding: 1rem }
header { display: flex; justify-content: space-between; border-bottom: 1px solid }
.inline { display: inline }
[role=status] { border-left: .25rem solid seagreen; padding-left: .5rem }
.error { border-color: crimson }
table { width: 100%; border-collapse: collapse; margin-bottom: 1rem }
th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid gray }
"""
