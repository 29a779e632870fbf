"""Finds the examples in the documentation: fenced blocks of Markdown and the EXAMPLES of modules."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import get_docstring

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "CHANGELOG.md", "docs/*.md", "docs/messages/*.md", "roles/*/README.md", "tests/**/README.md")


@dataclass(frozen=True)
class Example:
    """One example: where it stands (`page:line`), its language as written after the fence, and its text."""

    where: str
    language: str
    text: str

    def __str__(self) -> str:
        return self.where


def pages() -> list[Path]:
    found = {path for pattern in PAGES for path in ROOT.glob(pattern)}
    return sorted(path for path in found if not path.is_symlink())


def examples() -> list[Example]:
    """Every fenced block of every page, and every module's EXAMPLES as YAML."""
    found = []
    for page in pages():
        text = page.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            indent = match[1]
            body = "".join(part.removeprefix(indent) for part in match[3].splitlines(keepends=True))
            found.append(Example(f"{page.relative_to(ROOT)}:{line}", match[2], body))
    for module in modules():
        found.append(Example(f"plugins/modules/{module}.py", "yaml", documentation(module)["examples"]))
    return found


def of_language(*languages: str) -> list[Example]:
    return [example for example in examples() if example.language in languages]


def modules() -> list[str]:
    return sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


@cache
def documentation(module: str) -> dict[str, Any]:
    """A module's `options` (fragments merged in) and `examples`."""
    path = ROOT / "plugins" / "modules" / f"{module}.py"
    doc, text, _returns, _metadata = get_docstring(str(path), fragment_loader, collection_name="openmemory.stack")
    return {"options": doc["options"], "examples": text}


@cache
def role_options() -> dict[str, dict[str, Any]]:
    """Every variable of every role, by name, from the argument_specs."""
    found: dict[str, dict[str, Any]] = {}
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        found |= yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
    return found


def commands(text: str) -> list[list[str]]:
    """The commands of a shell example, as words: comments and assignments before a command are left out."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
            words = words[1:]
        if words:
            found.append(words)
    return found
