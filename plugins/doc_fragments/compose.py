# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that compose and compose_info share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of plugins/module_utils/_compose_options.py."""

    DOCUMENTATION = r"""
options:
  project_name:
    description:
      - Name of the Compose project, C(COMPOSE_PROJECT_NAME) in the settings file.
      - Lower case letters, digits, C(-) and C(_), starting with a letter or digit.
    type: str
    required: true
  project_src:
    description:
      - Directory of the project on the host. Relative paths in the files are relative to it.
    type: path
    required: true
  files:
    description:
      - The compose files in the order in which Compose merges them.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the file in O(project_src), without a directory.
        type: str
        required: true
      content:
        description: The text of the file.
        type: str
        required: true
      mode:
        description: Permissions of the file, octal and in quotes.
        type: str
        default: '0644'
  env:
    description:
      - Settings for the file C(.env) beside the compose files that may be shown. Compose fills in C(${NAME}) from it.
      - Only that file counts. Variables of the environment in which the module runs do not reach the project.
    type: dict
    default: {}
  secrets:
    description:
      - Settings for the same file that are never shown. The file has mode 0600.
    type: dict
    default: {}
"""
