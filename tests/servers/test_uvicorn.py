"""
Behind a real server: what clients see of restarts, of several processes over one file, and of connections that break.

Rule 1: a Secure cookie is sent by hand, because these clients, unlike browsers, send none over http.
Rule 2: no test waits for a time. A test waits until a process says what has happened there.

`HAMMER_SECONDS=10` hammers for longer; `-o log_cli=true --log-cli-level=INFO` shows how many requests that were.
"""

import logging
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from time import monotonic

import anyio
import httpx2
import pytest
from websockets.asyncio.client import connect

from tests.servers.server import Server, running

HAMMER_SECONDS = float(os.environ.get("HAMMER_SECONDS", "3"))
CLIENTS = 50
SLOW = 10  # requests under way during a log-out

logger = logging.getLogger(__name__)
logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request would bury the one that sums up
Headers = dict[str, str]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """
    Run each test once: the loop that matters is the server's, and the WebSocket client knows only asyncio.
    """
    return "asyncio"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where both processes have their one file of sessions."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def servers(directory: Path) -> Iterator[tuple[Server, Server]]:
    """
    Run two processes over one file.

    Not two workers behind one port: there a test could not choose which of them answers, and all might be the same one.
    """
    with running("tests.servers.app:app", directory) as here, running("tests.servers.app:app", directory) as there:
        yield here, there


@pytest.fixture
async def clients(servers: tuple[Server, Server]) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """Return a client of each process."""
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(client_of(server)) for server in servers]
        yield here, there


Clients = tuple[httpx2.AsyncClient, httpx2.AsyncClient]


def client_of(server: Server) -> httpx2.AsyncClient:
    """Return a client of *server* that has room for everybody, and patience."""
    limits = httpx2.Limits(max_connections=None)
    return httpx2.AsyncClient(base_url=server.url, limits=limits, timeout=30, trust_env=False)


def cookie_of(answer: httpx2.Response) -> Headers:
    """Return what a browser would send after *answer*."""
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


async def visit(client: httpx2.AsyncClient) -> Headers:
    """Begin a session, and return its cookie."""
    return cookie_of(await client.post("/visit"))


async def session_of(client: httpx2.AsyncClient, cookie: Headers) -> dict[str, object]:
    """Return what a session holds."""
    answer = await client.get("/session", headers=cookie)
    assert answer.status_code == 200
    held: dict[str, object] = answer.json()
    return held


async def test_a_restart_logs_nobody_out(tmp_path: Path) -> None:
    """
    A user who has logged in stays so while the server and both its workers are stopped and started again.
    """
    with running("examples.login:app", tmp_path, workers=2) as server:
        async with client_of(server) as client:
            visited = await client.get("/")
            logged_in = await client.post(
                "/login", data={"name": "ann", "password": "demo"}, headers=cookie_of(visited)
            )
    assert logged_in.status_code == 303

    with running("examples.login:app", tmp_path, workers=2) as server:
        async with client_of(server) as client:
            page = (await client.get("/", headers=cookie_of(logged_in))).text

    assert "Welcome, ann." in page
    assert "<strong>2</strong>" in page


async def test_processes_that_change_one_session_at_once_lose_nothing(clients: Clients) -> None:
    """
    Every change that a client was told of is there afterwards, whatever the others did at the same moment.
    """
    cookie = await visit(clients[0])
    give_up = monotonic() + HAMMER_SECONDS
    statuses: Counter[int] = Counter()
    kept: dict[str, int] = {}
    lost: list[str] = []

    async def hammer(client: httpx2.AsyncClient, key: str) -> None:
        number = 0
        while monotonic() < give_up:
            number += 1
            answer = await client.post(f"/write/{key}/{number}", headers=cookie)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                if answer.json() != kept.get(key, 0):
                    lost.append(f"{key}: {answer.json()} instead of {kept.get(key, 0)}")
                kept[key] = number

    async with anyio.create_task_group() as group:
        for number in range(CLIENTS):
            group.start_soon(hammer, clients[number % 2], f"client-{number}")

    logger.info("%s requests in %s s, %d keys lost: %s", statuses.total(), HAMMER_SECONDS, len(lost), dict(statuses))
    assert lost == []
    assert set(statuses) == {200}
    assert statuses[200] >= CLIENTS
    for client in clients:
        assert await session_of(client, cookie) == {"visited": True, "count": statuses[200], **kept}


async def test_fifty_at_once_count_fifty(clients: Clients) -> None:
    """
    Operations of requests that all began with the same session add up, and each of them is answered.
    """
    cookie = await visit(clients[0])
    answers: list[httpx2.Response] = []

    async def write(client: httpx2.AsyncClient, key: str) -> None:
        answers.append(await client.post(f"/write/{key}/1", headers=cookie))

    async with anyio.create_task_group() as group:
        for number in range(CLIENTS):
            group.start_soon(write, clients[number % 2], f"client-{number}")

    assert [answer.status_code for answer in answers] == [200] * CLIENTS
    assert (await session_of(clients[0], cookie))["count"] == CLIENTS


async def test_a_log_out_is_final_whatever_is_under_way(clients: Clients, directory: Path) -> None:
    """
    Requests under way in another process end after it, and do not bring the session back.

    Nor do they say a word about the cookie, which may be a newer log-in's by then.
    """
    here, there = clients
    cookie = await visit(here)
    answers: list[httpx2.Response] = []

    async def change(number: int) -> None:
        answers.append(await here.post(f"/slow/{number}", headers=cookie))

    async with anyio.create_task_group() as group:
        for number in range(SLOW):
            group.start_soon(change, number)
        await here.get("/wait", params={"name": "slow", "count": SLOW})
        logged_out = await there.post("/logout", headers=cookie)
        await here.post("/release")

    assert "Max-Age=0" in logged_out.headers["set-cookie"]
    assert [answer.status_code for answer in answers] == [200] * SLOW
    assert not any("set-cookie" in answer.headers for answer in answers)
    assert [await session_of(client, cookie) for client in clients] == [{}, {}]
    with closing(sqlite3.connect(directory / "sessions.db")) as connection:
        id = cookie["cookie"].partition("=")[2].partition(".")[0]
        assert connection.execute("SELECT * FROM sessions WHERE id = ?", [id]).fetchall() == []


async def test_a_client_that_vanishes_mid_stream_leaves_a_whole_session(clients: Clients) -> None:
    """
    What was changed before the response and what was changed during it is kept, and the next request works.
    """
    here, there = clients
    cookie = await visit(here)

    async with here.stream("GET", "/stream", headers=cookie) as answer:
        assert answer.status_code == 200
        body = answer.aiter_raw()  # held on to: collected, it would close the connection
        await anext(body)
        before = await session_of(there, cookie)
    await here.get("/wait", params={"name": "end of /stream"})

    assert before == {"visited": True, "asked": True}
    assert await session_of(there, cookie) == {"visited": True, "asked": True, "left": True, "right": True}
    assert (await here.post("/write/next/1", headers=cookie)).status_code == 200


async def test_what_a_websocket_changes_is_kept_when_it_closes(
    clients: Clients, servers: tuple[Server, Server]
) -> None:
    """
    A change after the handshake is there for the next request, also in another process.
    """
    here, there = clients
    cookie = await visit(here)

    url = f"ws://{servers[0].address}/socket"
    async with connect(url, additional_headers=cookie, proxy=None) as socket:
        for message in ("one", "two"):
            await socket.send(message)
            assert await socket.recv() == message
    await here.get("/wait", params={"name": "end of /socket"})

    assert await session_of(there, cookie) == {"visited": True, "messages": ["one", "two"]}
