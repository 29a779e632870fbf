"""Builds the collection's documentation with antsibull-docs and Sphinx into build/docsite/html, without any network.

Modules, roles and filters document themselves. A playbook does not, so the pages of the playbooks are written here, in
a copy of the collection, from what they hold: comment at the head, plays, hosts, roles, variables that they read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from sanity import copy_tracked

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "docsite"
COPY = SITE / "ansible_collections" / "openmemory" / "stack"
NAME = "openmemory.stack"
# In the template of a play: a variable with a default of the playbook's own.
ASKED = re.compile(r"\b([a-z]\w*) \| default\(")
CONF = f"""
project = "{NAME}"
html_title = "{NAME}"
extensions = ["sphinx.ext.intersphinx", "sphinx_antsibull_ext"]
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
html_theme = "alabaster"
default_role = "any"
intersphinx_mapping = {{}}
# Pages that other projects have, which intersphinx would fetch.
suppress_warnings = ["ref.any", "ref.ref"]
nitpicky = False
"""


def playbooks(root: Path) -> list[Path]:
    return sorted((root / "playbooks").glob("*.yml"))


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def comment(path: Path) -> str:
    """What the comment at a playbook's head says."""
    lines = path.read_text().splitlines()[1:]
    said = []
    for line in lines:
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# "))
    return " ".join(said)


def literal(text: str) -> str:
    """Markdown's code marks as reStructuredText has them, and nothing else that it would read as markup."""
    return re.sub(r"`([^`]+)`", r"``\1``", text.replace("*", "\\*").replace("_ ", "\\_ "))


def roles_of(play: dict[str, Any]) -> Iterator[str]:
    """The collection's roles that a play runs, whether listed or included."""
    for role in play.get("roles", []):
        yield str(role["role"] if isinstance(role, dict) else role)
    for part in ("pre_tasks", "tasks", "post_tasks"):
        for task in play.get(part, []):
            for key in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
                if key in task:
                    yield str(task[key]["name"])


def page(path: Path) -> str:
    """One playbook's page."""
    plays = yaml.safe_load(path.read_text())
    title = f"Playbook {path.stem}"
    said = comment(path)
    if not said:
        sys.exit(f"playbooks/{path.name} has no comment at its head that says what it does; write one after the ---.")
    asked = sorted(set(ASKED.findall(path.read_text())))
    lines = [
        f".. _ansible_collections.{NAME}.docsite.playbook_{path.stem}:\n",
        heading(title, "="),
        f"{literal(said)}\n",
        ".. code-block:: shell\n",
        f"   ansible-playbook -i inventory playbooks/{path.name}   # in the repository",
        f"   ansible-playbook -i inventory {NAME}.{path.stem}   # with the collection installed\n",
        heading("Plays", "-"),
    ]
    for play in plays:
        what = play.get("ansible.builtin.import_playbook")
        lines.append(f"- {literal(play.get('name', str(what)))}")
        if play.get("hosts"):
            lines.append(f"\n  - hosts: ``{play['hosts']}``")
        for role in dict.fromkeys(roles_of(play)):
            lines.append(f"  - role: :ref:`{role} <ansible_collections.{role}_role>`")
        lines.append("")
    if asked:
        lines += [heading("Variables it reads itself", "-"), "Beside those of its roles.\n"]
        lines += [f"- ``{name}``" for name in asked]
    return "\n".join(lines) + "\n"


def write_playbook_pages(collection: Path) -> None:
    """docs/docsite/ of the copy: a page per playbook, and the list of them that antsibull-docs reads."""
    place = collection / "docs" / "docsite"
    (place / "rst").mkdir(parents=True, exist_ok=True)
    names = []
    for path in playbooks(collection):
        (place / "rst" / f"playbook_{path.stem}.rst").write_text(page(path))
        names.append(f"playbook_{path.stem}")
    (place / "extra-docs.yml").write_text(
        yaml.safe_dump({"sections": [{"title": "Playbooks", "toctree": names}]}, sort_keys=False)
    )


def run(*command: str) -> None:
    """Run one of .venv's tools on the copy; ends the program with what it says if it fails."""
    home = SITE / "home"
    home.mkdir(exist_ok=True)
    env = {
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(SITE),
    }
    done = subprocess.run(command, cwd=SITE, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def expected() -> set[str]:
    """The pages that have to be there, by name."""
    modules = {f"{path.stem}_module.html" for path in (ROOT / "plugins/modules").glob("*.py")}
    roles = {f"{path.parent.parent.name}_role.html" for path in ROOT.glob("roles/*/meta/argument_specs.yml")}
    return modules | roles | {f"docsite/playbook_{path.stem}.html" for path in playbooks(ROOT)}


def main() -> int:
    shutil.rmtree(SITE, ignore_errors=True)
    COPY.mkdir(parents=True)
    copy_tracked(COPY)
    write_playbook_pages(COPY)
    for command in (["init", "-q"], ["add", "-A"]):  # antsibull-docs asks git which files there are
        subprocess.run(["git", *command], cwd=COPY, check=True)
    run(
        *("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--check-extra-docs-refs"),
        *("--validate-collection-refs", "self", str(COPY)),
    )
    pages = SITE / "rst"
    pages.mkdir()
    (pages / "conf.py").write_text(CONF)
    run(
        *("antsibull-docs", "collection", "--use-current", "--fail-on-error", "--squash-hierarchy"),
        *("--dest-dir", str(pages), NAME),
    )
    run("sphinx-build", "-q", "-W", "--keep-going", "-b", "html", str(pages), str(SITE / "html"))
    missing = sorted(name for name in expected() if not (SITE / "html" / name).exists())
    if missing:
        sys.exit(f"There is no page {', '.join(missing)} in build/docsite/html.")
    print(f"{len(expected())} pages of modules, roles and playbooks are in build/docsite/html.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
