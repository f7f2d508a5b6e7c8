"""A secret in a file of the ledger's folder: whoever can read the file may ask or send over HTTP."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from store.errors import LedgerUnusableError
from store.files import make_folder


def token_in(path: Path) -> str:
    """The token that the file holds; made at first use, readable by its owner alone.

    Raises:
        LedgerUnusableError: The file can neither be read nor made.
    """
    try:
        make_folder(path.parent)
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
        return path.read_text().strip()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LedgerUnusableError(
            f"The token file {path} cannot be used ({reason})",
            "make the ledger's folder writable for this user",
        ) from error
