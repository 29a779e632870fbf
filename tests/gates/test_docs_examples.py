"""Every example in the documentation is checked for what it is: playbook, tasks, variables, compose file, command."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import compose
import pytest
import yaml
from ansible.cli.galaxy import GalaxyCLI
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.options import build_parser

from examples import ROOT, Example, commands, documentation, modules, of_language, pages, role_options
from examples import examples as all_examples

LANGUAGES = {"yaml", "bash", "ini", "json", "text", "mermaid"}
# What is checked for being there by name only: the shell's own, and what every host of the lab has.
PLAIN = {
    "cd",
    "cp",
    "cat",
    "echo",
    "export",
    "git",
    "ln",
    "ls",
    "mkdir",
    "read",
    "ssh",
    "sudo",
    "curl",
    "unset",
    "umask",
    "rsync",
    "systemctl",
    "journalctl",
    "promtool",
}
DOCKER = {
    "compose": {"config", "down", "exec", "logs", "ps", "pull", "restart", "up", "version"},
    "volume": {"inspect", "ls", "prune", "rm"},
    "exec": set(),
    "logs": set(),
    "ps": set(),
}  # fmt: skip
VARIABLE = re.compile(r"(?:stack|docker_host|backup|restore|prune|purge|convert|migrate|update|monitoring)_\w+")


def run(*command: str, cwd: Path = ROOT) -> str:
    env = {
        **os.environ,
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check_variables(values: dict[str, Any]) -> None:
    """Every variable that carries a role's prefix is one of the role's, and has its type where it is a plain value."""
    ours = {name: value for name, value in values.items() if VARIABLE.fullmatch(name)}
    assert set(ours) - set(role_options()) == set()
    plain = {name: value for name, value in ours.items() if "{{" not in str(value)}
    assert (
        ArgumentSpecValidator(spec({name: role_options()[name] for name in plain})).validate(plain).error_messages == []
    )


def spec(options: dict[str, Any]) -> dict[str, Any]:
    """The argument spec that documented options describe."""
    found: dict[str, Any] = {}
    for name, option in options.items():
        found[name] = {key: option[key] for key in ("type", "elements", "choices", "required") if key in option}
        nested = option.get("suboptions") or option.get("options")
        if nested:
            found[name]["options"] = spec(nested)
    return found


def check_tasks(tasks: list[dict[str, Any]]) -> None:
    """Tasks that use our modules name options that exist, with values that they take."""
    for task in tasks:
        for part in ("block", "rescue", "always"):
            check_tasks(task.get(part, []))
        check_variables(task.get("vars", {}))
        for name in set(task) & {f"openmemory.stack.{module}" for module in modules()}:
            options = spec(documentation(name.rsplit(".", 1)[1])["options"])
            values = dict(task[name] or {})
            templated = {key for key, value in values.items() if "{{" in str(value)}
            for key in templated & set(options):  # what a template gives is known at run time only
                options[key] = {"type": "raw"}
            assert ArgumentSpecValidator(options).validate(values).error_messages == [], task


def check_plays(plays: list[dict[str, Any]], place: Path) -> None:
    for play in plays:
        check_variables(play.get("vars", {}))
        for part in ("pre_tasks", "tasks", "post_tasks", "handlers"):
            check_tasks(play.get(part, []))
    (place / "playbook.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    run("ansible-playbook", "-i", "localhost,", "--syntax-check", str(place / "playbook.yml"))


@pytest.mark.parametrize("example", all_examples(), ids=str)
def test_the_language_is_named(example: Example) -> None:
    assert example.language in LANGUAGES


@pytest.mark.parametrize("example", of_language("ini", "json", "yaml"), ids=str)
def test_data(example: Example, tmp_path: Path) -> None:
    if example.language == "json":
        json.loads(example.text)
    elif example.language == "ini":
        parser = configparser.ConfigParser()
        parser.read_string(example.text)
        assert parser.sections()
    else:
        check_yaml(example, tmp_path)


def check_yaml(example: Example, tmp_path: Path) -> None:
    data = yaml.safe_load(example.text)
    if isinstance(data, list):
        is_play = any(key in data[0] for key in ("hosts", "import_playbook", "ansible.builtin.import_playbook"))
        check_plays(data if is_play else [{"hosts": "all", "gather_facts": False, "tasks": data}], tmp_path)
    elif "services" in data:
        (tmp_path / "compose.yml").write_text(example.text)
        run(str(Path(compose.__file__).parent / "docker-compose"), "-f", str(tmp_path / "compose.yml"), "config", "-q")
    elif "collections" in data or "roles" in data:
        assert set(data) <= {"collections", "roles"}
        assert all(
            set(entry) <= {"name", "type", "version", "source", "src"} for part in data.values() for entry in part
        )
    elif any(isinstance(value, dict) and {"hosts", "children"} & set(value) for value in data.values()):
        (tmp_path / "hosts.yml").write_text(example.text)
        listed = json.loads(run("ansible-inventory", "-i", str(tmp_path / "hosts.yml"), "--list"))
        for variables in listed["_meta"]["hostvars"].values():
            check_variables(variables)
    else:
        check_variables(data)


@pytest.mark.parametrize("example", of_language("bash"), ids=str)
def test_commands(example: Example) -> None:
    found = commands(example.text)
    assert found
    page = ROOT / example.where.split(":")[0]
    for words in found:
        check_command(words, page.parent if (page.parent / "site.yml").exists() else ROOT)


def check_command(words: list[str], place: Path) -> None:
    """One command, typed in `place`: run if it is harmless, asked for its syntax if it is not."""
    name = words[0].removeprefix(".venv/bin/")
    if name == "sudo":
        check_command(words[1:], place)
    elif name == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        named = {word for word in words[1:] if "=" not in word}
        assert named
        assert named <= targets
    elif name == "ansible-playbook":
        check_playbook_command(words[1:], place)
    elif name in ("ansible-doc", "ansible-inventory"):
        run(name, *words[1:])
    elif name == "ansible-galaxy":
        GalaxyCLI([name, *words[1:]]).parse()
    elif name == "ansible-vault":
        run(name, words[1], "--help")
    elif name == "ansible":
        run(name, *words[1:], "--list-hosts")
    elif name == "openmemory-stack":
        parse_stack_command(words[1:])
    elif name == "docker":
        assert words[1] in DOCKER
        assert not DOCKER[words[1]] or DOCKER[words[1]] & set(words[2:])
    elif name == "python":
        run(name, words[1], "--help")
    elif name.startswith("tests/"):
        assert os.access(ROOT / name, os.X_OK)
    else:
        assert name in PLAIN


def parse_stack_command(words: list[str]) -> None:
    """As the command itself reads it; help and version end the program, which is as good."""
    if words and not {"--help", "--version"} & set(words):
        build_parser("0").parse_args(words)


def check_playbook_command(words: list[str], place: Path) -> None:
    """The playbook and the inventory exist (the lab may be down), the variables are known, the syntax is right."""
    arguments = list(words)
    for index, word in enumerate(words):
        if word == "-i" and words[index + 1] == "build/lab/inventory.yml":
            arguments[index + 1] = "inventory/fleet"
        elif word == "-i":
            assert "," in words[index + 1] or (place / words[index + 1]).exists(), words
        elif word in ("-e", "--extra-vars"):
            check_variables(dict(pair.split("=", 1) for pair in words[index + 1].split() if "=" in pair))
    arguments = [word for word in arguments if word not in ("-K", "--ask-become-pass", "-k", "--ask-vault-pass", "-J")]
    run("ansible-playbook", *arguments, "--syntax-check", cwd=place)


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that exist, and anchors name headings."""
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _sign, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ +(.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}, (
                target
            )


def test_the_examples_were_found() -> None:
    assert {example.where.split(":")[0] for example in all_examples()} >= {"README.md"}
