# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that the modules of backup and restore share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of plugins/module_utils/_repository_options.py."""

    DOCUMENTATION = r"""
options:
  compose_project:
    description:
      - Compose project whose volumes these are. Snapshots are kept under its name, and another project's are never
        taken for its own.
    type: str
    required: true
  repository:
    description:
      - Where the snapshots are, as restic names it, such as V(/var/backups/openmemory/openmemory) for a directory of
        the host, or V(sftp:backup@nas.example.com:/openmemory), V(rest:https://backup.example.com/openmemory) and
        V(s3:https://s3.example.com/bucket/openmemory).
      - One with a password in it is refused, as logs would show it; credentials go into O(environment).
    type: str
    required: true
  password_file:
    description:
      - File on the host that holds the password of the repository. Nobody but its owner may be able to read it.
      - Without this password nothing in the repository can ever be read again, so keep it in another place, too.
    type: path
    required: true
  environment:
    description:
      - Environment of restic, for the credentials of its back end, such as C(AWS_ACCESS_KEY_ID) and
        C(AWS_SECRET_ACCESS_KEY), or C(RESTIC_REST_USERNAME) and C(RESTIC_REST_PASSWORD), which work with every version
        of restic here. Never shown.
    type: dict
    default: {}
  state_dir:
    description:
      - Directory on the host for what is kept between runs, such as the copy that the next backup starts from. Mode
        C(0700).
    type: path
    default: /var/lib/openmemory-stack
requirements:
  - restic 0.14 or newer
  - Docker SDK for Python
"""
