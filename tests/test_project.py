"""The project keeps its own rules, as far as no other tool checks them."""

import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import asgi_sessions

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
FILES = sorted((ROOT / "asgi_sessions").rglob("*.py"))

_OPTIONAL = ["fastapi", "httpx", "httpx2", "hypothesis", "msgspec", "orjson", "pytest", "starlette", "uvicorn"]


def test_the_installed_version_is_the_one_in_pyproject() -> None:
    """
    What `pip list` and `asgi_sessions.__version__` show is what stands in pyproject.toml.
    """
    assert version("asgi-sessions") == PROJECT["version"]
    assert asgi_sessions.__version__ == PROJECT["version"]


def test_the_changelog_knows_the_version() -> None:
    """
    A release has a heading in the changelog; until the first one, everything is unreleased.
    """
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [PROJECT["version"]])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_line_is_kept_out_of_coverage(file: Path) -> None:
    """
    The branch coverage of 100 % is that of every line.
    """
    assert "pragma: no" not in file.read_text(encoding="utf-8")


def test_every_dependency_says_why() -> None:
    """
    Each requirement in pyproject.toml has its reason beside it.
    """
    requirements = re.findall(r'^  "[\w.-]+(?:\[[\w,]+\])?[<>=~!][^"]*",(.*)$', PYPROJECT, re.MULTILINE)

    assert len(requirements) > len(PROJECT["dependencies"])
    assert all(re.fullmatch(r" +# \S.+", reason) for reason in requirements)


@pytest.mark.parametrize("scheme", PROJECT["entry-points"]["asgi_sessions.stores"])
def test_every_store_that_a_url_can_name_is_there(scheme: str) -> None:
    """
    `Config(store="sqlite:///…")` never fails on a name that pyproject.toml has misspelt.
    """
    (entry,) = entry_points(group="asgi_sessions.stores", name=scheme)

    assert inspect.isclass(entry.load())


def test_the_package_imports_with_nothing_but_its_dependencies() -> None:
    """
    A user without Starlette, FastAPI or a test tool can import it.
    """
    program = f"import sys; sys.modules.update(dict.fromkeys({_OPTIONAL!r})); import asgi_sessions as s; s.__all__"

    result = subprocess.run([sys.executable, "-W", "error", "-c", program], check=False)

    assert result.returncode == 0
