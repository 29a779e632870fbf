"""Every sentence that the code can say to a user, with what to do about it: docs/messages/. `make messages` writes it.

A message is a text in plugins/ that an exception or fail_json carries, or one of four words or more that ends as a
sentence does or with the error that it tells; and of the roles and playbooks every fail_msg, every msg of fail, and
every sentence among a role's variables. Values that are filled in are shown as {name}. What to do is read from the
sentence itself ("…; set init: true"), or else comes from remedies/*.yml, by a pattern.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "messages"
REMEDIES = ROOT / "tests" / "gates" / "remedies"
CORE = ROOT / "plugins" / "module_utils" / "_core"
# Help, views and the like: what they print is no trouble, so only what they raise counts.
VIEWS = re.compile(r"options|show\w*|wording|metrics|operation_summary|status_table")
# Folders of the core that one page tells together, and what is in no folder.
AREAS = {
    "capture": "backup",
    "moving": "convert",
    "overview": "report",
    "stores": "proof",
}
COMPOSE = re.compile(r"compose_|project_")
TITLES = {
    "backup": "Backup: the plan, the freeze, the copy",
    "command": "The command openmemory-stack",
    "compose": "Compose and the project's files",
    "convert": "Conversion of volumes",
    "migrate": "Migration to another host",
    "monitoring": "Metrics and notifications",
    "operation": "Locks, journals and recovery",
    "proof": "Checks, censuses and the drill",
    "purge": "Purge",
    "report": "The report of the fleet",
    "repository": "The repository",
    "restore": "Restore",
    "roles": "Roles and playbooks",
    "update": "Update",
    "volumes": "Volumes and the engine",
}
LEAST_WORDS = 4
LEAST_WORDS_RAISED = 2
# What a remedy begins with. A sentence whose clause begins so says itself what to do.
_VERBS = """
    add adopt allow ask back build change check chmod choose clean complete connect copy correct create declare
    delete deploy disable empty enable export find finish follow free get give go have include install keep leave
    let list load look lower make mount move name narrow open pass pick point prove pull put quote raise rebuild
    reconnect reduce release remove rename renew repair repeat replace report reset restart restore resume retry run
    save say see send set shorten show start stop switch take tell try turn type unmount unset update upgrade use
    wait write
"""
VERBS = frozenset(_VERBS.split())
CLAUSE = re.compile(
    r"(?:(?<=[;:.?,)}])|(?<= or)|(?<= and)|(?<= so)|(?<= then)) "
    r"(?=(?:then |or |and |please |first )?([A-Za-z]+)\b(?! is| \(|\.))"
)
HOW = """Say in the sentence itself what to do ("…; set init: true to have it made"): a clause that begins with a
verb such as set, give, run, remove, install, correct, choose (all: _VERBS in tests/gates/messages.py). Where that
cannot be, add an entry to a file of tests/gates/remedies/ (its README says how). Then run: make messages"""


@dataclass(frozen=True, order=True)
class Message:
    """One sentence with {name} for what is filled in, the page it belongs to, and the file that says it."""

    area: str
    text: str
    file: str


def found() -> list[Message]:
    """Every message once, by area and text."""
    seen: dict[tuple[str, str], Message] = {}
    for message in sorted([*_of_python(), *_of_yaml()]):
        seen.setdefault((message.area, message.text), message)
    return sorted(seen.values(), key=lambda message: (message.area, message.text.lstrip("`{").lower()))


def _of_python() -> Iterator[Message]:
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        if "doc_fragments" not in path.parts:
            for text in sorted(_sentences(ast.parse(path.read_text()), bool(VIEWS.fullmatch(path.stem)))):
                yield Message(_area(path), text, str(path.relative_to(ROOT)))


def _area(path: Path) -> str:
    if CORE not in path.parents:
        is_report = "fleet" in path.name or "report" in path.name
        return "report" if is_report else "roles" if path.parent.name in ("filter", "lookup") else "command"
    first = path.relative_to(CORE).parts[0]
    if first.endswith(".py"):
        return "compose" if COMPOSE.match(first) else "volumes"
    return AREAS.get(first, first)


def _sentences(tree: ast.Module, raised_only: bool) -> set[str]:
    raised: set[str] = set()
    others: set[str] = set()
    skipped = {id(node) for node in _docstrings(tree)}

    def visit(node: ast.AST) -> None:
        if id(node) in skipped:
            return
        if isinstance(node, ast.Call) and (carried := _carried(node)) is not None:
            raised.update(texts(carried))
        if isinstance(node, (ast.JoinedStr, ast.Constant, ast.BinOp)) and not raised_only:
            others.update(texts(node))
        if not isinstance(node, ast.JoinedStr):
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(tree)
    kept = {text.strip() for text in raised if _says_something(text, LEAST_WORDS_RAISED)}
    sentences = {text.strip() for text in others if text.rstrip().endswith((".", "{error}")) and "\\" not in text}
    kept |= {text for text in sentences if _says_something(text, LEAST_WORDS)}
    # Of a text that is put together, the parts were seen as well.
    return {text for text in kept if not any(text != other and text in other for other in kept)}


def _says_something(text: str, least: int) -> bool:
    return "\n" not in text.strip() and len(re.findall(r"[a-z]+", re.sub(r"\{[^}]*\}", "", text))) >= least


def _docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            yield from [node.value] if isinstance(node.value, ast.Constant) else []
        elif isinstance(node, ast.keyword) and node.arg == "help":
            yield node.value


def _carried(call: ast.Call) -> ast.expr | None:
    """What an exception or fail_json is given to say."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name != "fail_json" and not name.endswith("Error") and name != "_Wrong":
        return None
    return next((word.value for word in call.keywords if word.arg == "msg"), call.args[0] if call.args else None)


def texts(node: ast.expr) -> list[str]:
    """The texts that an expression can give, with {name} for what is not known before it runs."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else ["{…}"]
    if isinstance(node, ast.JoinedStr):
        whole = [""]
        for part in node.values:
            more = [str(part.value)] if isinstance(part, ast.Constant) else _filled(part)
            whole = [before + after for before in whole for after in more]
        return whole
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [before + after for before in texts(node.left) for after in texts(node.right)]
    return ["{…}"]


def _filled(part: ast.expr) -> list[str]:
    value = part.value if isinstance(part, ast.FormattedValue) else part
    if isinstance(value, ast.IfExp):
        return texts(value)
    if isinstance(value, ast.Name):
        return [f"{{{value.id}}}"]
    return [f"{{{value.attr}}}"] if isinstance(value, ast.Attribute) else ["{…}"]


def _of_yaml() -> Iterator[Message]:
    for path in sorted([*ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("playbooks/*.yml")]):
        for text in _failing(yaml.safe_load(path.read_text())):
            yield from _spoken(text, path)
    for path in sorted(ROOT.glob("roles/*/vars/**/*.yml")):
        for text in _strings(yaml.safe_load(path.read_text())):
            if text.rstrip().endswith("."):
                yield from _spoken(text, path)


def _spoken(text: str, path: Path) -> Iterator[Message]:
    plain = " ".join(re.sub(r"\{\{.*?\}\}", lambda match: f"{{{_named(match[0])}}}", text, flags=re.DOTALL).split())
    if _says_something(plain, LEAST_WORDS):
        yield Message("roles", plain, str(path.relative_to(ROOT)))


def _named(expression: str) -> str:
    """A variable's own name; … for anything more."""
    plain = re.fullmatch(r"\{\{\s*([\w.]+)\s*\}\}", expression)
    return plain[1].rsplit(".", 1)[-1] if plain else "…"


def _failing(value: Any) -> Iterator[str]:
    """The texts with which tasks fail."""
    if isinstance(value, list):
        for item in value:
            yield from _failing(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "fail_msg" or (key == "msg" and "ansible.builtin.fail" in value):
                yield str(item)
            elif key == "ansible.builtin.fail":
                yield str(item["msg"])
            else:
                yield from _failing(item)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def remedy_of(text: str) -> str | None:
    """What the sentence itself says to do, or None."""
    for match in CLAUSE.finditer(text):
        if match[1].lower() in VERBS:
            clause = re.sub(r"^(?:then|or|and|please|first) ", "", text[match.end() :].strip())
            return clause[:1].upper() + clause[1:].rstrip(".") + "."
    return None


@dataclass(frozen=True)
class Rule:
    """A hand-written remedy: the pattern of the whole text, in which only * is special, the cause, and what to do."""

    says: str
    cause: str
    do: str

    def fits(self, text: str) -> bool:
        return fnmatchcase(text, self.says.replace("[", "[[]").replace("?", "[?]"))


def rules() -> list[Rule]:
    """The hand-written remedies, one for each pattern."""
    return [
        Rule(says, written["cause"], written["do"])
        for path in sorted(REMEDIES.glob("*.yml"))
        for written in yaml.safe_load(path.read_text())
        for says in ([written["says"]] if isinstance(written["says"], str) else written["says"])
    ]


def rule_for(text: str, known: list[Rule]) -> Rule | None:
    """Of those that fit the one with the most letters."""
    return max((rule for rule in known if rule.fits(text)), key=lambda rule: len(rule.says), default=None)


def entry(message: Message, known: list[Rule]) -> str | None:
    """Cause and remedy as the page has them, or None where nobody has said them."""
    own = remedy_of(message.text)
    if own:
        return f"**{own}**"
    rule = rule_for(message.text, known)
    return f"{rule.cause} **{rule.do}**" if rule else None


def pages() -> dict[str, str]:
    """The text of every page, by file name."""
    known = rules()
    rows: dict[str, list[str]] = defaultdict(list)
    for message in found():
        shown = message.text.replace("|", "\\|").replace("``", "`")
        fence = "``" if "`" in shown else "`"
        told = (entry(message, known) or "").replace("|", "\\|")
        rows[message.area].append(f"| {fence}{shown}{fence} | {told} |")
    listed = [f"- [{TITLES.get(area, area.capitalize())}]({area}.md)" for area in sorted(rows)]
    index = "\n".join(["# Every message", "", "Written by `make messages` from the code.", "", *listed, ""])
    return {"README.md": index} | {
        f"{area}.md": "\n".join(
            [
                f"# {TITLES.get(area, area.capitalize())}",
                "",
                "Written by `make messages` from the code; what is filled in is shown in braces. "
                "How to read a message and where to begin: [troubleshooting](../troubleshooting.md).",
                "",
                "| message | cause, and **what to do** |",
                "|---|---|",
                *lines,
                "",
            ]
        )
        for area, lines in sorted(rows.items())
    }


def main() -> int:
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (PAGES / name).write_text(text)
    known = rules()
    missing = [message for message in found() if entry(message, known) is None]
    for message in missing:
        print(f"{message.file}: nothing says what to do about: {message.text}", file=sys.stderr)
    if missing:
        print(HOW, file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
