# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A role's defaults, its argument_specs and its README name the same variables, with the same defaults and types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent.name for path in REPOSITORY.glob("roles/*/tasks/main.yml"))


def read(role: str, *names: str) -> Any:
    path = REPOSITORY.joinpath("roles", role, *names)
    return yaml.safe_load(path.read_text()) or {}


def options(role: str) -> dict[str, dict[str, Any]]:
    return dict(read(role, "meta", "argument_specs.yml")["argument_specs"]["main"]["options"])


def is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def test_there_are_roles() -> None:
    assert {"docker_host", "stack"} <= set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_an_option(role: str) -> None:
    assert set(read(role, "defaults", "main.yml")) - set(options(role)) == set()


@pytest.mark.parametrize("role", ROLES)
def test_an_option_without_a_default_is_required_or_says_so(role: str) -> None:
    missing = set(options(role)) - set(read(role, "defaults", "main.yml"))
    assert {name for name in missing if not options(role)[name].get("required")} == set()


@pytest.mark.parametrize("role", ROLES)
def test_stated_defaults_are_the_real_ones(role: str) -> None:
    defaults = read(role, "defaults", "main.yml")
    stated = {name: option["default"] for name, option in options(role).items() if "default" in option}
    real = {name: value for name, value in defaults.items() if not is_template(value)}
    unstated = {name for name, value in real.items() if name not in stated and value not in ("", None, {}, [])}
    assert {name: value for name, value in stated.items() if name in real and real[name] != value} == {}
    assert unstated == set()


@pytest.mark.parametrize("role", ROLES)
def test_defaults_have_the_type_of_the_option(role: str) -> None:
    values = {name: value for name, value in read(role, "defaults", "main.yml").items() if not is_template(value)}
    spec = {name: option for name, option in options(role).items() if name in values}
    checked = ArgumentSpecValidator(without_documentation(spec)).validate(values)
    assert checked.error_messages == []


def without_documentation(spec: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The argument spec as a module would have it."""
    kept = ("type", "elements", "choices", "options")
    plain = {name: {key: option[key] for key in kept if key in option} for name, option in spec.items()}
    for option in plain.values():
        if "options" in option:
            option["options"] = without_documentation(option["options"])
    return plain


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_names_every_variable(role: str) -> None:
    readme = (REPOSITORY / "roles" / role / "README.md").read_text()
    assert [name for name in options(role) if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described(role: str) -> None:
    assert [
        name for name, option in options(role).items() if not option.get("description") or "type" not in option
    ] == []


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_name_of_the_role(role: str) -> None:
    assert [name for name in options(role) if not name.startswith(f"{role}_")] == []
