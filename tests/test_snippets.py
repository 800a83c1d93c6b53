"""
The README and the docs are true: what they show runs, what they link to is there.

The ```python blocks of a page run in their order and share a namespace, a directory and an event loop, so that a page
may build up its story; `await` may stand at the top level. A block that cannot run says so, and why, where it begins:

    ```python {.no-run reason="needs a Redis server"}
"""

import ast
import asyncio
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import CodeType, ModuleType

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
TEXTS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]

_MOST_NOT_RUN = 5  # blocks in all; more would mean that the docs are no longer tested

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>.*)\n(?P<body>(?:.*\n)*?)(?P=indent)(?P=fence)[ \t]*$",
    re.MULTILINE,
)
_INCLUDE = re.compile(r'^--8<-- "(?P<path>[^"]+)"$', re.MULTILINE)
_NOT_RUN = re.compile(r'python \{\.no-run reason="(?P<reason>[^"]+)"\}')
_OPTIONS = re.compile(r'python( (title|hl_lines|linenums)="[^"]*")*')
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?)(?: +\{ *#(?P<anchor>[\w-]+) *\})? *$", re.MULTILINE)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)|^\[[^\]]+\]: (?P<defined>\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of Python."""

    page: Path
    line: int
    """Where its first line of code stands, from 1."""
    info: str
    source: str

    @property
    def runs(self) -> bool:
        """Whether the page wants it run."""
        return not _NOT_RUN.fullmatch(self.info)

    def compile(self) -> CodeType:
        """Return its code; a traceback names the page and the line."""
        padding = "\n" * (self.line - 1)
        code: CodeType = compile(padding + self.source, self.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return code


def blocks(page: Path) -> Iterator[Block]:
    """Yield the Python blocks of *page*, those in tabs and admonitions too, with included files filled in."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        info = match["info"].strip()
        if re.match(r"\{?\s*\.?py(thon|con|3)?\b", info):
            source = textwrap.dedent(match["body"])
            source = _INCLUDE.sub(lambda include: (ROOT / include["path"]).read_text(encoding="utf-8"), source)
            yield Block(page, text.count("\n", 0, match.start("body")) + 1, info, source)


def prose(text: str) -> str:
    """Return *text* without its fenced blocks and inline code: headings and links in there are none."""
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("](", "] ("), _FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of *page*."""
    return {
        match["anchor"] or re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", match["text"]).strip().lower())
        for match in _HEADING.finditer(prose(page.read_text(encoding="utf-8")))
    }


def name(page: Path) -> str:
    """Return how the tests call *page*."""
    return page.relative_to(ROOT).as_posix()


BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in BLOCKS), ids=name)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A reader who copies the blocks of a page from top to bottom gets what the page says.
    """
    module = ModuleType("snippets")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses and models look up their names
    monkeypatch.chdir(tmp_path)

    with asyncio.Runner() as runner:
        for block in filter(lambda block: block.runs, blocks(page)):
            code = block.compile()
            result = eval(code, module.__dict__)  # noqa: S307  # our own pages
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(result)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{name(block.page)}:{block.line}")
def test_a_block_either_runs_or_says_why_not(block: Block) -> None:
    """
    No block escapes its test by a misspelt mark.
    """
    assert _OPTIONS.fullmatch(block.info) or _NOT_RUN.fullmatch(block.info), f"```{block.info}"


def test_few_blocks_do_not_run() -> None:
    """
    Leaving a block untested stays the exception.
    """
    assert len([block for block in BLOCKS if not block.runs]) <= _MOST_NOT_RUN


def test_the_readme_begins_with_a_whole_app_that_is_short() -> None:
    """
    A newcomer sees a whole application at once.
    """
    app = next(block.source for block in BLOCKS if block.page == README)

    assert "SessionMiddleware" in app
    assert len(app.splitlines()) < 60


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    """
    No page is hidden, and no entry leads nowhere.
    """

    def entries(nav: object) -> Iterator[str]:
        match nav:
            case str():
                yield nav
            case list():
                for entry in nav:
                    yield from entries(entry)
            case dict():
                yield from entries([*nav.values()])

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    assert sorted(entries(nav)) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES if page != README)


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    """
    Every link to a page, a heading or a documented name is good.
    """
    broken = []
    for match in _LINK.finditer(prose(page.read_text(encoding="utf-8"))):
        path, _, anchor = (target := match["target"] or match["defined"]).partition("#")
        if re.match(r"[a-z+]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (DOCS in page.parents and DOCS not in file.parents):
            broken.append(target)
        elif anchor.startswith("asgi_sessions"):
            resolve_name(anchor)
        elif anchor and anchor not in anchors(file):
            broken.append(target)

    assert broken == []
