"""crypt_r(3): is this the password? With libxcrypt, or musl's, which know bcrypt; Python's own module for it is gone in 3.13."""

import ctypes
import hmac

_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", None)
_DATA_SIZE = 256 * 1024
"""Of struct crypt_data: 32 KiB in libxcrypt, 128 KiB in old glibc."""
_MAX = 512


def _load() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            library.crypt_r.restype = ctypes.c_char_p
        except (OSError, AttributeError):
            continue
        return library
    return None


_library = _load()


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """The hash of a password by a setting (`$2y$10$` and 22 characters of salt), or None: the setting is none, or not known here.

    Takes as long as the setting says, tens of milliseconds; other threads go on meanwhile.
    """
    if _library is None or b"\0" in password or len(password) > _MAX:
        return None
    data = ctypes.create_string_buffer(_DATA_SIZE)
    found: bytes | None = _library.crypt_r(password, setting, data)
    return None if found is None or found.startswith(b"*") else found


def matches(password: bytes, hashed: bytes) -> bool:
    """Whether this is the password of a hash."""
    found = crypt(password, hashed)
    return found is not None and hmac.compare_digest(found, hashed)
