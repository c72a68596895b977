"""Secrets at rest: AES-256-GCM under a key that only the service's user can read.

The key is beside the store, and in no backup of the database alone: whoever gets hold of one of the two has
no secret. It is 32 random bytes as base64url in a text file, so that it may come as a systemd credential too.
"""

import hmac
import os
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path

from marchproxy.model.publickey import decode, encode
from marchproxy.store.errors import (
    StoreError,
    VaultKeyExposed,
    VaultKeyInvalid,
    VaultKeyMissing,
    VaultUnreadable,
)
from marchproxy.store.location import DEFAULT_STATE_DIR, Location, make_folder, refusal

KEY_FILE = "secret.key"
CREDENTIAL = "marchproxy.key"
"""The name of the systemd credential that comes before the file (systemd.exec(5), LoadCredential=)."""
KEY_BYTES = 32
_NONCE_BYTES = 12
_LONGEST_FILE = 1024


class Vault:
    """Seals and unseals. The key is read when it is needed, and made when first something is sealed."""

    def __init__(self, file: Path, environment: Mapping[str, str] = os.environ) -> None:
        folder = environment.get("CREDENTIALS_DIRECTORY")
        credential = Path(folder) / CREDENTIAL if folder else None
        self._given = credential is not None and _is_there(credential)
        self._file = credential if credential is not None and self._given else file

    @classmethod
    def beside(cls, location: Location, environment: Mapping[str, str] = os.environ) -> "Vault":
        """The vault of a store: next to its file; with a store on a server, in the state folder."""
        state = Path(environment.get("MARCHPROXY_STATE_DIR") or DEFAULT_STATE_DIR)
        return cls((location.path.parent if location.path else state) / KEY_FILE, environment)

    def seal(self, secret: bytes, owner: str) -> str:
        """The secret in a form for the database, which opens for this owner only.

        Raises `StoreError`, also where it may not make the key.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        return b64encode(
            nonce + AESGCM(self._key(create=True)).encrypt(nonce, secret, owner.encode())
        ).decode()

    def unseal(self, sealed: str, owner: str, *, what: str = "") -> bytes:
        """The secret. Raises `VaultUnreadable` where it was sealed with another key or for another owner.

        `what` it is, for people; the secret of a service unless given.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        cipher = AESGCM(self._key(create=False))
        try:
            data = b64decode(sealed, validate=True)
            return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError) as error:
            raise VaultUnreadable(what or f"the secret of service {owner!r}", str(self._file)) from error

    @property
    def place(self) -> str:
        """Where the key is, or would be."""
        return str(self._file)

    def key(self) -> bytes | None:
        """The text of the key, for a backup; None where nothing has been sealed. Raises `StoreError`."""
        try:
            return encode(self._read()).encode() + b"\n"
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refusal(error, str(self._file)) from error

    def derived(self, purpose: str) -> bytes | None:
        """A key of its own for something that is not sealed; None where no key can be read."""
        try:
            return hmac.digest(self._read(), purpose.encode(), "sha256")
        except (OSError, StoreError):
            return None

    def _key(self, *, create: bool) -> bytes:
        try:
            return self._read()
        except FileNotFoundError:
            if not create:
                raise VaultKeyMissing(str(self._file)) from None
        except OSError as error:
            raise refusal(error, str(self._file)) from error
        try:
            _create(self._file)
            return self._read()
        except OSError as error:
            raise refusal(error, str(self._file)) from error

    def _read(self) -> bytes:
        with self._file.open("rb") as file:
            # Who may read a credential is systemd's to see to.
            if not self._given and os.fstat(file.fileno()).st_mode & 0o077:
                raise VaultKeyExposed(str(self._file))
            text = file.read(_LONGEST_FILE)
        try:
            key = decode(text.decode("ascii").strip())
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise VaultKeyInvalid(str(self._file))
        return key


def _is_there(credential: Path) -> bool:
    """Whether systemd gave it. What `ExecReload=` starts may not look (252), and does not need it."""
    try:
        return credential.exists()
    except PermissionError:
        return True


def _create(path: Path) -> None:
    """Make a key, whole or not at all; one that is there, or that another process makes now, stays."""
    make_folder(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(secrets.token_bytes(KEY_BYTES)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Else the power could go with the key and leave what was sealed with it.
        os.fsync(folder)
    finally:
        os.close(folder)
