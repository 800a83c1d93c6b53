"""
The example: what a visitor sees of it, in several browsers and across a restart.

Rule 1: a test clicks; it looks at pages and cookies, never into the store.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

COOKIE = "__Host-session"
DEVICE = re.compile(r'name="device" value="([^"]+)"')


class Site(Protocol):
    """What the example is to its tests."""

    app: FastAPI


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], TestClient]]:
    """Return what starts the site, in a directory of its own; started anew, it stops first, as a process would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SESSION_STORE", raising=False)
    with ExitStack() as running:

        def restart() -> TestClient:
            running.close()
            monkeypatch.delitem(sys.modules, "examples.login", raising=False)
            site: Site = importlib.import_module("examples.login")
            return running.enter_context(TestClient(site.app, base_url="https://testserver"))

        yield restart


@pytest.fixture
def browser(start: Callable[[], TestClient]) -> TestClient:
    """Return the first browser."""
    return start()


def another(browser: TestClient, name: str = "Phone") -> TestClient:
    """Return one more browser, with cookies of its own, at the site where *browser* is."""
    other = TestClient(browser.app, base_url="https://testserver", headers={"user-agent": name})
    other.portal = browser.portal  # one server, one event loop
    return other


def log_in(browser: TestClient, name: str = "ann", **fields: str) -> str:
    """Log in and return the page that follows."""
    answer = browser.post("/login", data={"name": name, "password": "demo", **fields})
    assert answer.status_code == 200
    return answer.text


def is_logged_in(browser: TestClient) -> bool:
    """Return whether the home page offers to log out."""
    return 'action="/logout"' in browser.get("/").text


def opens(browser: TestClient, token: str) -> bool:
    """Return whether a thief with *token* would be logged in."""
    return 'action="/logout"' in another(browser).get("/", headers={"cookie": f"{COOKIE}={token}"}).text


def visits(page: str) -> int:
    """Return the counter on the home page."""
    match = re.search(r"<strong>(\d+)</strong>", page)
    assert match is not None
    return int(match[1])


def test_visits_are_counted(browser: TestClient) -> None:
    """
    Each visit counts one, in each browser from the start.
    """
    counts = [visits(browser.get("/").text) for _ in range(3)]

    assert counts == [1, 2, 3]
    assert visits(another(browser).get("/").text) == 1


def test_the_log_in_page_costs_a_stranger_no_session(browser: TestClient) -> None:
    """
    Who only looks at the form gets no cookie.
    """
    answer = browser.get("/login")

    assert "set-cookie" not in answer.headers


def test_a_log_in_replaces_the_token_and_keeps_the_cart(browser: TestClient) -> None:
    """
    A token planted before the log-in is worth nothing after it; what was put into the cart stays.
    """
    browser.post("/cart", data={"item": "tea"})
    before = browser.cookies[COOKIE]

    page = log_in(browser)

    assert browser.cookies[COOKIE] != before
    assert "<li>tea" in page
    assert not opens(browser, before)
    assert opens(browser, browser.cookies[COOKIE])


def test_a_wrong_password_is_refused(browser: TestClient) -> None:
    """
    Only the password shown on the page logs in.
    """
    answer = browser.post("/login", data={"name": "ann", "password": "guess"})

    assert "not the password" in answer.text
    assert not is_logged_in(browser)


def test_only_who_wants_to_be_remembered_gets_a_cookie_that_stays(browser: TestClient) -> None:
    """
    The cookie ends with the browser, or lives for the 30 days that the box promises.
    """
    form = {"name": "ann", "password": "demo"}

    plain = browser.post("/login", data=form, follow_redirects=False).headers["set-cookie"]
    lasting = browser.post("/login", data={**form, "remember": "on"}, follow_redirects=False).headers["set-cookie"]

    assert "Max-Age" not in plain
    seconds = re.search(r"Max-Age=(\d+)", lasting)
    assert seconds is not None
    assert 29 * 86400 < int(seconds[1]) <= 30 * 86400


def test_the_cart_takes_items_and_gives_them_back(browser: TestClient) -> None:
    """
    Two of a kind are two; removing one leaves the other, and a second click on a button that is gone does no harm.
    """
    for item in ("tea", "tea", "<b>"):
        browser.post("/cart", data={"item": item})

    pages = [browser.post("/cart/remove", data={"item": "tea"}).text for _ in range(3)]

    assert [page.count("<li>tea") for page in pages] == [1, 0, 0]
    assert "<li>&lt;b&gt;" in pages[-1]
    assert "<b>" not in pages[-1]


def test_a_message_is_shown_once(browser: TestClient) -> None:
    """
    A message waits for the next page, and is gone from the one after it.
    """
    first = browser.post("/cart", data={"item": "tea"}).text

    second = browser.get("/").text

    assert first.count("Added tea.") == 1
    assert "Added tea." not in second


def test_the_devices_page_is_for_users_only(browser: TestClient) -> None:
    """
    A stranger is sent to the log-in page, and told why.
    """
    answer = browser.get("/devices")

    assert answer.url.path == "/login"
    assert "Log in to see that page." in answer.text


def test_the_devices_page_lists_each_of_the_users_devices(browser: TestClient) -> None:
    """
    A user sees all their own sessions by browser, this one marked, and nobody else's.
    """
    phone, stranger = another(browser), another(browser, "Stranger's <i>")
    log_in(browser)
    log_in(phone)
    log_in(stranger, "bob")

    page = browser.get("/devices").text

    assert "<td>testclient</td>" in page
    assert "<td>Phone</td>" in page
    assert "Stranger" not in page
    assert page.count("this device") == 1
    assert len(DEVICE.findall(page)) == 1
    assert "<td>Stranger&#x27;s &lt;i&gt;</td>" in stranger.get("/devices").text


def test_one_other_device_can_be_logged_out(browser: TestClient) -> None:
    """
    The button beside a device ends that one alone.
    """
    phone, tablet = another(browser), another(browser, "Tablet")
    log_in(phone)
    log_in(browser)
    (device,) = DEVICE.findall(browser.get("/devices").text)
    log_in(tablet)

    page = browser.post("/devices/end", data={"device": device}).text

    assert "That device is logged out." in page
    assert not is_logged_in(phone)
    assert is_logged_in(tablet)
    assert is_logged_in(browser)


def test_all_other_devices_can_be_logged_out_at_once(browser: TestClient) -> None:
    """
    "Everywhere else" spares this device, and other users.
    """
    phone, tablet, stranger = another(browser), another(browser, "Tablet"), another(browser)
    for each in (browser, phone, tablet):
        log_in(each)
    log_in(stranger, "bob")

    page = browser.post("/devices/end-others").text

    assert "Other devices logged out: 2." in page
    assert [is_logged_in(each) for each in (browser, phone, tablet, stranger)] == [True, False, False, True]


def test_nobody_can_end_the_session_of_another_user(browser: TestClient) -> None:
    """
    A session ID is public; knowing another user's ends nothing.
    """
    phone, mallory = another(browser), another(browser, "Mallory")
    log_in(browser)
    log_in(phone)
    log_in(mallory, "mallory")
    devices = DEVICE.findall(browser.get("/devices").text) + DEVICE.findall(phone.get("/devices").text)
    assert len(devices) == 2

    pages = [mallory.post("/devices/end", data={"device": device}).text for device in devices]

    assert all("There is no such device." in page for page in pages)
    assert is_logged_in(browser)
    assert is_logged_in(phone)


def test_a_log_out_ends_this_device_only(browser: TestClient) -> None:
    """
    The cookie is deleted, the old token opens nothing, and the user's other device stays logged in.
    """
    phone = another(browser)
    log_in(browser)
    log_in(phone)
    token = browser.cookies[COOKIE]
    assert opens(browser, token)

    answer = browser.post("/logout", follow_redirects=False)

    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert COOKIE not in browser.cookies
    assert not opens(browser, token)
    assert is_logged_in(phone)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another host of our domain, perhaps someone else's
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_a_form_from_another_site_is_refused(browser: TestClient, headers: dict[str, str]) -> None:
    """
    Another site can neither log a user out nor log them in as someone else.
    """
    log_in(browser)

    answers = [
        browser.post("/logout", headers=headers),
        browser.post("/login", data={"name": "mallory", "password": "demo"}, headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert "<div>ann " in browser.get("/").text


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": "https://testserver"}])
def test_a_form_of_the_site_itself_is_accepted(browser: TestClient, headers: dict[str, str]) -> None:
    """
    Browsers say where a form came from, newer and older ones in different headers.
    """
    log_in(browser)

    browser.post("/logout", headers=headers)

    assert not is_logged_in(browser)


def test_a_restart_logs_nobody_out(start: Callable[[], TestClient], tmp_path: Path) -> None:
    """
    Sessions are in a file of the working directory, and are there for the next process.
    """
    before = start()
    before.post("/cart", data={"item": "tea"})
    log_in(before)

    after = start()
    after.cookies = before.cookies

    page = after.get("/").text
    assert 'action="/logout"' in page
    assert "<li>tea" in page
    assert (tmp_path / "demo.db").exists()


def test_the_environment_names_the_store(
    start: Callable[[], TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    `SESSION_STORE` wins over the default of the example.
    """
    monkeypatch.setenv("SESSION_STORE", "memory:")

    browser = start()
    log_in(browser)

    assert is_logged_in(browser)
    assert not (tmp_path / "demo.db").exists()
