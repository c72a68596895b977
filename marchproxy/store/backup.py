"""A store and the key of its secrets as one sequence of bytes that only a passphrase opens.

The magic line, salt, nonce, then AES-256-GCM (NIST SP 800-38D) over a compressed tar archive of the two
files, under a key of the passphrase by scrypt (RFC 7914). The magic line is authenticated with the rest.
"""

import io
import os
import tarfile
import zlib
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from marchproxy.model.errors import InvalidValue
from marchproxy.store.database import Database
from marchproxy.store.engines import BUSY_TIMEOUT
from marchproxy.store.errors import StoreError, VaultKeyMissing
from marchproxy.store.location import FILE_NAME, Location, locate
from marchproxy.store.vault import KEY_FILE, Vault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"MARCHPROXY-BACKUP/1\n"
SHORTEST = 8
"""Characters of a passphrase."""
LARGEST = 2**31 - 1024
"""Bytes, which AES-GCM takes at once: a store with hundreds of block lists of a million entries."""
_SALT, _NONCE = 16, 12
_COST = 2**16
"""scrypt's N with r=8 and p=1: 64 MB and a fifth of a second for each guess."""
_SEALED = {
    "jwt_secret": "SELECT 1 FROM jwt_secret LIMIT 1",
    "log_token": "SELECT 1 FROM log_token LIMIT 1",
    "certificate": "SELECT 1 FROM certificate LIMIT 1",
    "certificate_source": "SELECT 1 FROM certificate_source LIMIT 1",
    "acme_account": "SELECT 1 FROM acme_account LIMIT 1",
}
"""By table: whether something is in it that only the key opens."""
_HEAD = len(MAGIC) + _SALT + _NONCE


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a backup."""

    database: bytes = field(repr=False)
    """An SQLite file."""
    key: bytes | None = field(repr=False)
    """The file of the key of secrets; None where nothing had been sealed."""


def check_passphrase(passphrase: str) -> None:
    """Raise `InvalidValue` for one that could be guessed at once."""
    if len(passphrase) < SHORTEST:
        raise InvalidValue("passphrase", "…", f"at least {SHORTEST} characters")


def make_backup(passphrase: str, state_dir: Path | None = None) -> bytes:
    """The store as it is at this moment, whoever writes to it meanwhile.

    Raises `InvalidValue` for the passphrase, `StoreError`, and OSError where there is no room for a copy.
    """
    check_passphrase(passphrase)
    location = locate(state_dir)
    contents = Contents(_copy(location), _key(location))
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    return MAGIC + salt + nonce + _cipher(passphrase, salt).encrypt(nonce, _pack(contents), MAGIC)


def open_backup(data: bytes, passphrase: str) -> Contents:
    """What `make_backup` packed. Raises `StoreError` for anything else, and for another passphrase."""
    from cryptography.exceptions import InvalidTag

    if not data.startswith(MAGIC):
        newer = data.startswith(MAGIC.partition(b"/")[0])
        raise StoreError(
            "this is a backup of a newer version" if newer else "this is no backup of an appliance"
        )
    salt, nonce = data[len(MAGIC) : len(MAGIC) + _SALT], data[len(MAGIC) + _SALT : _HEAD]
    try:
        return _unpack(_cipher(passphrase, salt).decrypt(nonce, data[_HEAD:], MAGIC))
    except (InvalidTag, ValueError):
        raise StoreError(
            "the backup does not open", hint="the passphrase is another one, or the file is damaged"
        ) from None


def _key(location: Location) -> bytes | None:
    """The key of secrets; None where there are none. Raises `VaultKeyMissing` where it is not here."""
    vault = Vault.beside(location)
    key = vault.key()
    if key is None and location.path is not None:
        database = Database.open_file(location, location.path, read_only=True, timeout=BUSY_TIMEOUT)
        with closing(database):
            tables = {name for (name,) in database.query("SELECT name FROM sqlite_master")}
            if any(database.query(_SEALED[table]) for table in tables & _SEALED.keys()):
                raise VaultKeyMissing(vault.place)
    return key


def _copy(location: Location) -> bytes:
    if location.path is None:
        raise StoreError(
            f"store {location.label!r} is on a server",
            hint="back it up with the server's own tools, and the key of secrets apart from it",
        )
    with TemporaryDirectory(prefix="marchproxy-") as folder:
        copy = Path(folder) / FILE_NAME
        database = Database.open_file(location, location.path, read_only=True, timeout=BUSY_TIMEOUT)
        try:
            database.query("VACUUM INTO ?", str(copy))
        finally:
            database.close()
        if copy.stat().st_size > LARGEST:
            raise StoreError(f"store {location.label!r} is too large for a backup", hint="copy the file")
        return copy.read_bytes()


def _pack(contents: Contents) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in ((FILE_NAME, contents.database), (KEY_FILE, contents.key)):
            if data is not None:
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o600
                archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _unpack(packed: bytes) -> Contents:
    """Nothing is written by the names in it. Raises ValueError."""
    held: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member)
                held[member.name] = file.read() if file else b""
        return Contents(held[FILE_NAME], held.get(KEY_FILE))
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _cipher(passphrase: str, salt: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return AESGCM(Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase.encode()))
