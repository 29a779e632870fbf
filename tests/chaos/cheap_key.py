# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A repository's key made cheap to open. restic makes each cost half a second of a processor, whatever it is for, and
the tests open some a thousand times. All else is as restic made it: only the parameters of scrypt in the key change.

The format is restic's (its design document, "Keys, Encryption and MAC"): AES-256-CTR, then Poly1305-AES.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

CHEAP = {"N": 16, "r": 1, "p": 1}
SERVED: dict[int, Path] = {}  # port: directory of a REST server that a test has started
_SCRYPT_BYTES = 256 << 20


def made_cheap(init: Callable[[Any], None]) -> Callable[[Any], None]:
    """Repository.init, with a cheap key where the repository's files can be reached."""

    def init_and_cheapen(repository: Any) -> None:
        init(repository)
        restic = repository.restic
        served = re.fullmatch(r"rest:http://[^/]*:(\d+)/(.*)", restic.repository)
        place = restic.local_path
        if served and int(served[1]) in SERVED:
            place = str(SERVED[int(served[1])] / served[2])
        if place:
            cheapen(place, Path(restic.password_file).read_text().strip())

    return init_and_cheapen


def cheapen(repository: str, password: str) -> None:
    """Replace the one key of a local repository by one for the same password and the same data."""
    [old] = (Path(repository) / "keys").iterdir()
    about = json.loads(old.read_text())
    sealed = base64.b64decode(about["data"])
    key = _derive(password, about)
    assert _mac(key, sealed[:16], sealed[16:-16]) == sealed[-16:], "not this password"
    master = _crypt(key, sealed[:16], sealed[16:-16])
    nonce = os.urandom(16)
    cheap = {**about, **CHEAP}
    key = _derive(password, cheap)
    data = _crypt(key, nonce, master)
    cheap["data"] = base64.b64encode(nonce + data + _mac(key, nonce, data)).decode()
    text = json.dumps(cheap).encode()
    (old.parent / hashlib.sha256(text).hexdigest()).write_bytes(text)
    old.unlink()


def _derive(password: str, about: dict[str, object]) -> bytes:
    salt = base64.b64decode(str(about["salt"]))
    n, r, p = (int(str(about[name])) for name in "Nrp")
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_BYTES, dklen=64)


def _crypt(key: bytes, nonce: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key[:32]), modes.CTR(nonce)).encryptor().update(data)


def _mac(key: bytes, nonce: bytes, data: bytes) -> bytes:
    one = Cipher(algorithms.AES(key[32:48]), modes.ECB()).encryptor().update(nonce)
    return Poly1305.generate_tag(key[48:64] + one, data)
