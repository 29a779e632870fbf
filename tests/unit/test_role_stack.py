# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The compose files that the role stack renders, read by the real Docker Compose."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).resolve().parents[2] / "roles" / "stack"
SECRETS = {"stack_google_api_key": "google s3cret", "stack_neo4j_password": "neo4j $p4ss#word"}


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = DataLoader().load_from_file(str(path), trusted_as_template=True)
    return found


def templar(settings: dict[str, Any]) -> Templar:
    variables = {
        "playbook_dir": str(ROLE),
        "ansible_search_path": [str(ROLE)],
        **load(ROLE / "defaults" / "main.yml"),
        **load(ROLE / "vars" / "main.yml"),
        **SECRETS,
        **settings,
    }
    return Templar(loader=DataLoader(), variables=variables)


def value(settings: dict[str, Any], name: str) -> Any:
    engine = templar(settings)
    return engine.template(engine.available_variables[name])


def resolve(directory: Path, files: list[dict[str, str]], env: str) -> dict[str, Any]:
    for file in files:
        (directory / file["name"]).write_bytes(file["content"].encode())
    (directory / ".env").write_text(env, encoding="utf-8")
    arguments = [word for file in files for word in ("--file", file["name"])]
    done = subprocess.run(
        ["docker", "compose", *arguments, "config", "--format", "json"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={name: os.environ[name] for name in ("PATH", "HOME")},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rendered(tmp_path: Path, **settings: Any) -> dict[str, Any]:
    """Our own file as Compose resolves it, with the secrets as they may stand in `.env`."""
    files = value(settings, "stack__files")
    for secret in SECRETS.values():
        assert secret not in str(files)
    return resolve(tmp_path, files, "GOOGLE_API_KEY='google'\nNEO4J_PASSWORD='pa$$word'\nQDRANT_API_KEY=qdrant\n")


def test_by_default_everything_is_pinned_guarded_and_on_loopback(tmp_path: Path) -> None:
    config = rendered(tmp_path)
    assert config["name"] == "openmemory"
    assert sorted(config["services"]) == ["neo4j", "openmemory-mcp", "qdrant"]
    for service in config["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert service["healthcheck"]["test"]
    assert {key: volume["external"] for key, volume in config["volumes"].items()} == dict.fromkeys(
        ["neo4j_data", "neo4j_logs", "openmemory_data", "qdrant_storage"], True
    )
    assert config["volumes"]["neo4j_data"]["name"] == "openmemory_neo4j_data"
    app = config["services"]["openmemory-mcp"]
    assert app["container_name"] == "openmemory-mcp"
    assert app["environment"]["DATABASE_URL"] == "sqlite:////usr/src/openmemory/data/openmemory.db"
    assert app["environment"]["NEO4J_PASSWORD"] == "pa$$$$word"
    assert "QDRANT_API_KEY" not in app["environment"]
    assert {name: item["condition"] for name, item in app["depends_on"].items()} == {
        "neo4j": "service_healthy", "qdrant": "service_healthy"
    }  # fmt: skip
    assert config["services"]["neo4j"]["stop_grace_period"] == "2m0s"


def test_unprotected_is_the_block_of_the_guide(tmp_path: Path) -> None:
    rendered(tmp_path, stack_protected=False)
    text = (tmp_path / "docker-compose.production.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["volumes"] == {
        key: {"driver": "local"} for key in ("openmemory_data", "qdrant_storage", "neo4j_data", "neo4j_logs")
    }


def test_a_directory_for_all_volumes(tmp_path: Path) -> None:
    config = rendered(tmp_path, stack_protected=False, stack_data_dir="/srv/om", stack_project="om")
    assert config["volumes"]["neo4j_data"] == {
        "name": "om_neo4j_data",
        "driver": "local",
        "driver_opts": {"type": "none", "o": "bind", "device": "/srv/om/neo4j_data"},
    }
    assert "container_name" not in config["services"]["openmemory-mcp"]


def test_images_limits_ports_and_environment(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    config = rendered(
        tmp_path,
        stack_image_registry="registry:5000",
        stack_openmemory_tag="1.1",
        stack_neo4j_digest=digest,
        stack_qdrant_memory="1g",
        stack_qdrant_cpus="1.5",
        stack_qdrant_api_key="qdrant-s3cret",
        stack_qdrant_grpc_port=0,
        stack_neo4j_http_port=0,
        stack_neo4j_bolt_port=0,
        stack_openmemory_port=80,
        stack_bind_address="::1",
        stack_neo4j_heap="2g",
        stack_openmemory_environment={"DATABASE_URL": "sqlite:////x", "A b": "1", "DOLLAR": "$$x"},
    )
    app, qdrant, neo4j = (config["services"][name] for name in ("openmemory-mcp", "qdrant", "neo4j"))
    assert app["image"] == "registry:5000/mem0/openmemory-mcp:1.1"
    assert neo4j["image"] == f"registry:5000/neo4j:5.26.30@{digest}"
    assert int(qdrant["mem_limit"]) == 1 << 30
    assert float(qdrant["cpus"]) == 1.5
    assert qdrant["environment"] == {"QDRANT__SERVICE__API_KEY": "qdrant"}
    assert [port["published"] for port in qdrant["ports"]] == ["6333"]
    assert "ports" not in neo4j
    assert (app["ports"][0]["published"], app["ports"][0]["host_ip"]) == ("80", "::1")
    assert app["environment"]["DATABASE_URL"] == "sqlite:////x"
    assert app["environment"]["DOLLAR"] == "$$x"
    assert neo4j["environment"]["NEO4J_server_memory_heap_max__size"] == "2g"


def test_health_checks_reach_the_containers_as_they_are_meant(tmp_path: Path) -> None:
    config = rendered(tmp_path)
    code = config["services"]["openmemory-mcp"]["healthcheck"]["test"]
    assert code[:3] == ["CMD", "python3", "-c"]
    compile(code[3], "health", "exec")
    shell = config["services"]["qdrant"]["healthcheck"]["test"]
    assert shell[:3] == ["CMD", "bash", "-c"]
    assert "printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n'" in shell[3]
    subprocess.run(["bash", "-n", "-c", shell[3].replace("$$", "$")], check=True)


def test_a_users_file_is_deployed_byte_for_byte_with_an_override_for_its_volumes(tmp_path: Path) -> None:
    services = "services: {a: {image: x, volumes: ['data:/d', 'other:/o']}}"
    text = f"{services}\nvolumes: {{data: {{driver: local, driver_opts: {{type: tmpfs}}}},\r\n  other: }}\n\n\n"
    own = tmp_path / "mine.yml"
    own.write_bytes(text.encode())
    volumes = {
        key: {"name": f"openmemory_{key}", "driver": "local", "driver_opts": {}, "external": False}
        for key in ("data", "other")
    }
    settings: dict[str, Any] = {
        "stack_compose_file": str(own),
        "stack_info": {"volumes": volumes, "services": {}},
        "stack_volumes": {"other": {"protected": False, "path": "/srv/other"}},
    }
    base, override = value(settings, "stack__files")
    assert (base["name"], base["content"]) == ("mine.yml", text)
    assert override["name"] == "docker-compose.override-volumes.yml"
    config = resolve(tmp_path, [base, override], "COMPOSE_PROJECT_NAME=openmemory\n")
    assert config["volumes"] == {
        "data": {"name": "openmemory_data", "external": True},
        "other": {
            "name": "openmemory_other",
            "driver": "local",
            "driver_opts": {"type": "none", "o": "bind", "device": "/srv/other"},
        },
    }
    settings.update(stack_protected=False, stack_volumes={})
    assert value(settings, "stack__files") == [base]


def test_the_settings_file_holds_what_is_set_and_nothing_else() -> None:
    settings = {"stack_qdrant_api_key": "", "stack_env": {"MORE": "x"}}
    assert value(settings, "stack__secrets") == {
        "GOOGLE_API_KEY": "google s3cret", "NEO4J_PASSWORD": "neo4j $p4ss#word", "MORE": "x"
    }  # fmt: skip


@pytest.mark.parametrize("path", ["defaults/main.yml", "vars/main.yml"])
def test_every_variable_has_the_roles_prefix(path: str) -> None:
    assert [name for name in load(ROLE / path) if not name.startswith("stack_")] == []


def test_defaults_and_documented_options_are_the_same() -> None:
    options = load(ROLE / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(ROLE / "defaults" / "main.yml")
    assert sorted(options) == sorted(defaults)
    assert {name: option.get("default") for name, option in options.items()} == defaults


@pytest.mark.parametrize(
    ("settings", "beginning"),
    [
        ({}, ""),
        ({"stack_google_api_key": ""}, "stack_google_api_key is empty; export GOOGLE_API_KEY"),
        ({"stack_neo4j_password": ""}, "stack_neo4j_password is empty; export NEO4J_PASSWORD"),
        ({"stack_neo4j_password": "seven77"}, "stack_neo4j_password has fewer than 8 characters"),
        ({"stack_neo4j_password": "with/slash"}, "stack_neo4j_password has fewer than 8 characters or a slash"),
        ({"stack_compose_file": "/nope.yml"}, "stack_compose_file names /nope.yml, which is no file"),
        ({"stack_volumes": {"nope": {}}}, "stack_volumes names 'nope', no volume of the compose file"),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], beginning: str) -> None:
    problem = value(settings, "stack__problem")
    assert problem.startswith(beginning) if beginning else problem == ""
    assert "\n" not in problem


def test_a_users_file_needs_only_the_secrets_that_it_names(tmp_path: Path) -> None:
    own = tmp_path / "mine.yml"
    own.write_text("services: {a: {image: x}}\n", encoding="utf-8")
    settings = {"stack_compose_file": str(own), "stack_google_api_key": "", "stack_neo4j_password": ""}
    assert value(settings, "stack__problem") == ""
    own.write_text("services: {a: {image: x, environment: {K: '${GOOGLE_API_KEY}'}}}\n", encoding="utf-8")
    assert value(settings, "stack__problem").startswith("stack_google_api_key is empty")
