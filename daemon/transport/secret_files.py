"""Secrets: from a setting or from a file of its own, opened when they are needed and never kept.

A file is read again each time, so what a secret store or a sidecar writes anew counts from the next login on.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

from daemon.config import SecuritySettings
from daemon.errors import SettingsError

_log = logging.getLogger(__name__)

#: Far above any password or token; a path that leads elsewhere is not read into memory.
SECRET_BYTES_MAX = 64 * 1024

#: Gives the secret as it is now; may raise `SettingsError`.
Secret = Callable[[], str]


def secret_of(security: SecuritySettings, key: str) -> Secret | None:
    """Return what gives the secret of `key` or of ``key_file``; None where neither is set."""
    value, file = getattr(security, key), getattr(security, f"{key}_file")
    if value:  # an empty one, as an environment may hold, is none
        return value.get_secret_value  # type: ignore[no-any-return]
    return partial(read_secret, file, f"{key}_file") if file is not None else None


def read_secret(file: Path, key: str) -> str:
    """Read a secret without the line's end that editors leave.

    Raises
    ------
    SettingsError : names the key and the file, never what stands in it
    """
    try:
        if file.stat().st_size > SECRET_BYTES_MAX:
            raise SettingsError(f"{named(key, file)} has more than {SECRET_BYTES_MAX} bytes; is it the right file?")
        text = file.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{named(key, file)}: {error.strerror}; make it readable for this user") from error
    except UnicodeDecodeError:
        # Without its cause: that one holds the bytes.
        raise SettingsError(f"{named(key, file)} is no UTF-8 text; is it the right file?") from None
    secret = text.rstrip("\r\n")
    if not secret:
        raise SettingsError(f"{named(key, file)} is empty; write the secret into it")
    return secret


def warn_where_others_read(file: Path, key: str) -> None:
    """Warn of a secret that every user of the machine can read; the file's own owner and group may."""
    if file.stat().st_mode & stat.S_IROTH:
        _log.warning("%s can be read by every user of this machine; chmod o-r", named(key, file))


def named(key: str, file: Path) -> str:
    """Return a setting as messages name it."""
    return f"kafka.security.{key} = {file}"
