#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_report_info
short_description: Tell what a report about a whole fleet says, without writing it
version_added: 0.2.0
description:
  - Makes of what M(openmemory.stack.stack_info) returned on each host what M(openmemory.stack.fleet_report) writes as
    JSON, with what is wrong first.
  - Runs on the controller.
extends_documentation_fragment:
  - openmemory.stack.fleet
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.fleet_report
  - module: openmemory.stack.stack_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Look at the stacks
  openmemory.stack.stack_info:
  register: found

- name: See what is wrong here
  openmemory.stack.fleet_report_info:
    hosts:
      - host: "{{ inventory_hostname }}"
        result: "{{ found }}"
  register: judged

- name: Nothing is
  ansible.builtin.assert:
    that: judged.report.findings | length == 0
"""

RETURN = r"""
report:
  description: What C(report.json) of M(openmemory.stack.fleet_report) holds.
  returned: success
  type: dict
  contains:
    generated:
      description: When it was made, in UTC.
      type: str
      sample: '2026-11-25T08:15:04Z'
    state:
      description: A hash that moves only where more than times, ages, live sizes and free space is different.
      type: str
      sample: 0d3c60a9e1f2ab7d7a9d80f7e6f5c4b3a25f0c2a9be1d24c53a1f0b0a3ce3c3a
    summary:
      description: The fleet in figures.
      type: dict
      sample: {hosts: 3, stacks: 2}
    findings:
      description:
        - What is wrong, the worst first, each with C(host), C(project), C(level), C(code), C(message) and C(since).
      type: list
      elements: dict
      sample: [{host: memory-1, project: openmemory, level: critical, code: stale, since: '2026-11-22T02:15:04Z'}]
    hosts:
      description: The hosts, the worst first, each with C(name), C(status), C(problem) and C(stacks).
      type: list
      elements: dict
      sample: [{name: memory-1, status: critical, problem: null, stacks: []}]
"""
