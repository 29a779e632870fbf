#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_report
short_description: Write one page about a whole fleet, and the same as JSON
version_added: 0.2.0
description:
  - Makes an HTML page and a JSON file from what M(openmemory.stack.stack_info) returned on each host. Hosts that gave
    no answer are on it with the reason.
  - The page asks for nothing else, no script, font or image, and its own policy forbids it to.
  - Runs on the controller, and is what the role C(report) ends with. M(openmemory.stack.fleet_report_info) makes the
    same without writing it.
options:
  directory:
    description:
      - Directory on the controller for C(index.html) and C(report.json). It is made if it is missing.
      - Each file is replaced as a whole, so whoever reads one meanwhile has the old one or the new one.
    type: path
    required: true
  template:
    description:
      - Jinja2 template of the page, looked for as M(ansible.builtin.template) does. All that it shows is escaped.
    type: path
    required: true
  stylesheet:
    description:
      - CSS file that is put into the page, looked for in C(files).
    type: path
    required: true
  mode:
    description:
      - Mode of the two files.
    type: str
    default: '0640'
extends_documentation_fragment:
  - openmemory.stack.fleet
attributes:
  check_mode:
    support: full
    description: Writes nothing, and tells whether anything is new.
  diff_mode:
    support: full
    description: Shows the status and the findings of each host, of the last report and of this one.
  idempotent:
    support: full
    description:
      - The files are written at each run, as they tell the time. It is a change only where more than times, ages, live
        sizes and free space is different.
seealso:
  - module: openmemory.stack.stack_info
  - module: openmemory.stack.fleet_report_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Look at the stacks
  openmemory.stack.stack_info:
  register: report_found
  failed_when: false
  ignore_unreachable: true

- name: Write the page
  openmemory.stack.fleet_report:
    hosts: "{{ report_hosts }}"
    directory: /srv/www/fleet
    template: report.html.j2
    stylesheet: report.css
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
page:
  description: Path of the page.
  returned: success
  type: str
  sample: /srv/www/fleet/index.html
json:
  description: Path of the JSON file.
  returned: success
  type: str
  sample: /srv/www/fleet/report.json
summary:
  description: The fleet in figures.
  returned: success
  type: dict
  sample:
    hosts: 3
    by_status: {unreachable: 1, failed: 0, critical: 1, warning: 0, ok: 1}
    stacks: 2
    volumes: 8
    snapshots: 31
    data_bytes: 1073741824
    stored_bytes: 310000000
    oldest_newest_s: 93600
msg:
  description: The same in a sentence, with the path of the page.
  returned: success
  type: str
  sample: '2 of 3 hosts need attention: /srv/www/fleet/index.html'
"""
