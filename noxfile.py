"""
What CI runs. `nox` alone runs lint, types, tests and docs; `nox -s bench` measures.

Interpreters are those of the machine: a Python that is not installed is skipped, and fails where CI is set.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.16"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"  # what is tested is what is installed
nox.options.reuse_venv = "yes"  # packages are installed anew if they have changed
nox.options.sessions = ["lint", "types", "tests", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)  # from the classifiers


def _offer_pyenv_versions() -> None:
    """Let pyenv's shims find every Python we test: without this they run only the global one."""
    if "PYENV_VERSION" in os.environ or not (pyenv := shutil.which("pyenv")):
        return
    installed = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=True).stdout.split()
    newest = {match[1]: match[0] for version in installed if (match := re.fullmatch(r"(3\.\d+)\.\d+", version))}
    if chosen := [newest[python] for python in PYTHONS if python in newest]:
        os.environ["PYENV_VERSION"] = ":".join(chosen)


_offer_pyenv_versions()


def _install(session: nox.Session, *groups: str) -> None:
    """Install the package, editable, and dependency groups."""
    session.install("--editable", ".", *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and layers."""
    _install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy strict everywhere, and that users see every public name typed."""
    _install(session, "types", "bench")
    session.run("mypy")
    session.run("pyright", "--verifytypes", "asgi_sessions", "--ignoreexternal")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on one Python."""
    _install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS[0], venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows, on the oldest Python."""
    groups = nox.project.dependency_groups(PYPROJECT, "test")
    session.install("--resolution=lowest-direct", "--upgrade", "--editable", ".[demo]", *groups)
    session.run("pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run what the README and the docs show, and build the site; a warning is an error."""
    _install(session, "docs")
    session.run("pytest", "tests/test_snippets.py")
    session.run("zensical", "build", "--clean", "--strict")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure: the benchmarks named as arguments, else all of them."""
    _install(session, "bench", "test")
    for name in session.posargs or sorted(file.stem for file in Path("benchmarks").glob("[!_]*.py")):
        session.run("python", "-m", f"benchmarks.{name}")
