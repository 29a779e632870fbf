"""Faked hosts, 10 and 50: each is asked exactly as often as any other, and five times as many five times as often."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from simulated_fleet import Cost, Fleet

WRONG = """
- hosts: openmemory
  gather_facts: false
  tasks:
    - name: Ask wrongly
      {module}: {arguments}
"""


def play(place: Path, hosts: int, playbook: str) -> Cost:
    fleet = Fleet(place, hosts, {})
    fleet.prepare()
    return fleet.play(playbook, "-e", f"report_dir={place}/report")


def per_host(cost: Cost) -> set[frozenset[tuple[str, int]]]:
    """The different ways in which hosts were asked: what, and how often."""
    asked: dict[str, Counter[str]] = {}
    for (host, name), times in cost.calls.items():
        asked.setdefault(host, Counter())[name] = times
    assert len(asked) == cost.hosts
    return {frozenset(counted.items()) for counted in asked.values()}


@pytest.mark.parametrize(
    ("playbook", "sizes", "round_trips"),
    [
        ("report", (10, 50), {"openmemory.stack.stack_info"}),
        ("status", (10, 50), {"openmemory.stack.volume_info", "openmemory.stack.compose_info"}),
        (
            "site",
            (2, 10),
            {"probe.sh", "openmemory.stack.compose_info", "openmemory.stack.volume", "openmemory.stack.compose"},
        ),
    ],
)
def test_a_larger_fleet_costs_in_proportion(
    tmp_path: Path, playbook: str, sizes: tuple[int, int], round_trips: set[str]
) -> None:
    few, many = (play(tmp_path / str(hosts), hosts, f"playbooks/{playbook}.yml") for hosts in sizes)
    for cost in (few, many):
        assert cost.code == 0, cost.output
        assert per_host(cost) == {frozenset((name, 1) for name in round_trips)}
    assert sum(many.calls.values()) * sizes[0] == sum(few.calls.values()) * sizes[1]
    assert many.sent_bytes * sizes[0] == pytest.approx(few.sent_bytes * sizes[1], rel=0.01)


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("openmemory.stack.volume_info", "{compose_projekt: openmemory}", "compose_projekt"),
        ("openmemory.stack.volume_info", "{compose_project: openmemory, size: perhaps}", "size"),
        ("openmemory.stack.volume", "{}", "missing required arguments: volumes"),
        ("ansible.builtin.command", "{cmd: uptime}", "knows no module"),
        ("ansible.builtin.raw", "uptime", "knows no command"),
    ],
)
def test_a_faked_host_hides_nothing_wrong(tmp_path: Path, module: str, arguments: str, said: str) -> None:
    playbook = tmp_path / "wrong.yml"
    playbook.write_text(WRONG.format(module=module, arguments=arguments))
    cost = play(tmp_path / "fleet", 1, str(playbook))
    assert cost.code != 0
    assert said in " ".join(cost.output.split())  # Ansible wraps it
