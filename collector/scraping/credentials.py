"""What a server wants to be shown first: it stands in files, whose contents no setting, message or event holds.

They are read at each scrape, so that a token that is renewed is shown at the next.
"""

import re
from pathlib import Path

HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*)")
"""RFC 9110, 5.1 and 5.5, without what `http.client` would refuse with the value in its message."""
FILE_BYTES_MAX = 65_536


class CredentialsError(Exception):
    """Why there are none, as a phrase without what is in the files."""


def headers_of(token_file: str | None, headers_file: str | None) -> dict[str, str]:
    """The headers that the files give.

    Args:
        token_file: Holds a bearer token.
        headers_file: Holds a header a line, as in `X-Api-Key: …`; empty lines and those that begin with # count not.

    Raises:
        CredentialsError: A file cannot be read, or holds something else.
    """
    headers = {}
    if headers_file:
        for number, line in enumerate(_content(headers_file, "headers_file").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            if not (found := HEADER.fullmatch(line.rstrip())):
                raise CredentialsError(f"line {number} of its headers_file is no 'Name: value'")
            headers[found[1]] = found[2]
    if token_file:
        token = _content(token_file, "token_file").strip()
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise CredentialsError("its token_file holds no token in one line")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _content(path: str, setting: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode()
    except OSError as error:
        raise CredentialsError(f"its {setting} cannot be read ({(error.strerror or str(error)).lower()})") from None
    except UnicodeDecodeError:
        raise CredentialsError(f"its {setting} is no text") from None
