"""A file of htpasswd: `name:hash` lines, the hashes of bcrypt (`htpasswd -B`) or argon2.

One rule: a name that is not there takes as long as one that is. Hashes that a laptop breaks in a day (MD5, SHA-1,
crypt, plain text) are refused with the line that has them.
"""

from __future__ import annotations

from importlib.util import find_spec

LONGEST = 1024  # of a password: hashing is not to be made expensive by whoever asks
_NOBODY = b"$2b$10$SLQesMykFPVFJf.CEDRQ8ON1B0mYVa98/vANHldmpDGF4ocuIkK32"  # of no password that anybody has


class PasswordFile:
    """User names with their password hashes."""

    def __init__(self, text: str, filename: str) -> None:
        """Raises ValueError for a line that cannot be used."""
        self._hashes: dict[bytes, bytes] = {}
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            name, colon, hashed = line.partition(":")
            if not colon or not name:
                raise ValueError(f"{filename}:{number}: expected name:hash")
            if (why := unusable(hashed)) is not None:
                raise ValueError(f"{filename}:{number}: {name}: {why}")
            self._hashes[name.encode()] = hashed.encode()
        self._decoy = next(iter(self._hashes.values()), _NOBODY)

    def __len__(self) -> int:
        return len(self._hashes)

    def check(self, name: bytes, password: bytes) -> bool:
        """Whether this is the name's password. Takes its time: never on the loop."""
        hashed = self._hashes.get(name)
        right = len(password) <= LONGEST and _matches(self._decoy if hashed is None else hashed, password)
        return right and hashed is not None


def unusable(hashed: str) -> str | None:
    """Why a hash is not accepted; None if it is."""
    if hashed.startswith(("$2y$", "$2b$", "$2a$")):
        return "needs bcrypt: pip install 'streamgate[auth]'" if find_spec("bcrypt") is None else None
    if hashed.startswith("$argon2"):
        return "needs argon2-cffi: pip install 'streamgate[auth]'" if find_spec("argon2") is None else None
    return "its hash is too weak or unknown: make it with htpasswd -B (bcrypt), or with argon2"


def _matches(hashed: bytes, password: bytes) -> bool:
    if hashed.startswith(b"$argon2"):
        import argon2  # as bcrypt below: the extra `auth`

        try:
            return bool(argon2.PasswordHasher().verify(hashed.decode(), password))
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
    import bcrypt

    try:
        return bcrypt.checkpw(password[:72], hashed)  # what htpasswd hashes of a longer one, too
    except ValueError:
        return False
