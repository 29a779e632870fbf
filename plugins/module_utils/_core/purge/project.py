# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that a deployment has written into the project's directory: only those, and only if they say so."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..compose_stamp import STAMP_NAME
from ..errors import StackError
from ..project_env import ENV_NAME, HEADER

WORKING_DIR_LABEL = "com.docker.compose.project.working_dir"


def project_directory(containers: Sequence[Mapping[str, Any]]) -> str | None:
    """Where the containers (of the engine's list) say that their compose file is; None where they do not agree."""
    found = {(each.get("Labels") or {}).get(WORKING_DIR_LABEL) for each in containers}
    path = found.pop() if len(found) == 1 else None
    return path if path and os.path.isabs(path) and os.path.normpath(path) == path else None


def project_files(directory: str, project: str) -> list[str]:
    """Absolute paths of the files of ours in a directory: those that the settings file names, and itself last.

    [] where that file is not ours or is of another project: then nobody knows whose the directory is. Raises
    StackError where it cannot be read.
    """
    path = os.path.join(directory, ENV_NAME)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            text = lines.read()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StackError(f"{path} cannot be read ({error.strerror}); use become: true.") from error
    settings = dict(line.partition("=")[::2] for line in text.splitlines() if not line.startswith("#"))
    if not text.startswith(HEADER) or settings.get("COMPOSE_PROJECT_NAME") != project:
        return []
    names = settings.get("COMPOSE_FILE", "").strip('"').split(":")
    plain = [name for name in names if name and "/" not in name and name not in (".", "..")]
    found = [os.path.join(directory, name) for name in (*plain, STAMP_NAME, ENV_NAME)]
    return [file for file in found if os.path.isfile(file) and not os.path.islink(file)]
