"""The documentation fails when it lies: generated pages, links, commands, and what no file may say."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer

from gpuledger.cli import app
from gpuledger.pages import reference_pages
from query import windows

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
REGISTRIES = tuple(
    ".".join(parts)  # in parts, so that this file does not say them either
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
    )
)
DEVELOPERS_PATH = re.compile(r"(?<![\w.*~$}/-])/(?:root|home/\w+|Users/\w+|work)/[\w.]+")


@cache
def files() -> tuple[Path, ...]:
    """All files of the repository: those in git, and new ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def pages() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands() -> list[str]:
    group = typer.main.get_command(app)
    return [name for name, command in group.commands.items() if not command.hidden]


def marked_block(page: str, name: str) -> str:
    command = [sys.executable, str(ROOT / ".ci/marked_block.py"), str(ROOT / page), name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_generated_pages_are_what_the_declarations_say_today():
    expected = reference_pages()
    assert {path.name: path.read_text() for path in REFERENCE.iterdir()} == expected, "run 'gpuledger docs'"


@pytest.mark.parametrize("command", commands())
def test_every_command_is_shown_in_the_documentation(command):
    shown = [named(page) for page in pages() if re.search(rf"\bgpuledger {command}\b", page.read_text())]
    assert shown


@pytest.mark.parametrize("page", [named(page) for page in pages()])
def test_every_relative_link_leads_to_a_file(page):
    text = FENCED.sub("", (ROOT / page).read_text())
    targets = [target.partition("#")[0] for target in LINK.findall(text) if ":" not in target]
    missing = [target for target in targets if target and not (ROOT / page).parent.joinpath(target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", [named(page) for page in pages()])
def test_every_link_into_a_page_leads_to_a_heading(page):
    text = FENCED.sub("", (ROOT / page).read_text())
    missing = []
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        if anchor and ":" not in target and anchor not in anchors(linked):
            missing.append(target)
    assert missing == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_of_the_documentation_is_in_its_index():
    index = (ROOT / "docs/README.md").read_text()
    linked = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in LINK.findall(index)}
    assert {named(page) for page in pages() if page.is_relative_to(ROOT / "docs")} == {
        named(page) for page in {*linked, ROOT / "docs/README.md"} if page.is_relative_to(ROOT / "docs")
    }


def test_the_page_on_windows_has_the_table_of_the_grammar():
    table = [line for line in windows.__doc__.splitlines() if line.startswith("|")]
    assert len(table) > 10
    page = (ROOT / "docs/concepts/windows.md").read_text().splitlines()
    assert [line for line in page if line.startswith("|")] == table


def test_the_readme_installs_and_tests_in_two_commands():
    start, test = marked_block("README.md", "start"), marked_block("README.md", "test")
    assert start.count("\n") == test.count("\n") == 1
    assert start.endswith(" && .venv/bin/gpuledger up\n")
    assert test.endswith(" && .venv-test/bin/pytest -n logical\n")


def test_a_block_that_is_not_marked_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        marked_block("README.md", "nothing")


@pytest.mark.parametrize("host", REGISTRIES)
def test_no_file_names_a_package_registry(host):
    assert [named(path) for path in files() if host.encode() in path.read_bytes()] == []


def test_no_file_holds_a_path_of_a_developers_machine():
    found = {named(path): DEVELOPERS_PATH.findall(path.read_text(errors="replace")) for path in files()}
    assert {path: paths for path, paths in found.items() if paths} == {}
