"""Ask HTTP addresses, one after the other, and print what they answer: curl where there may be none.

    python3 .ci/get.py http://127.0.0.1:9465/healthz

Exit code 0: all answered with success; 1: one did not.
"""

import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

TIME_LIMIT_S = 10


def main() -> None:
    failed = False
    for url in sys.argv[1:]:
        try:
            with urlopen(url, timeout=TIME_LIMIT_S) as answer:  # noqa: S310 (the caller's own address)
                print(answer.read().decode().rstrip())
        except HTTPError as error:
            print(f"{url}: {error.code} {error.read().decode(errors='replace').strip()}", file=sys.stderr)
            failed = True
        except (URLError, OSError, ValueError) as error:
            print(f"{url}: {getattr(error, 'reason', error)}", file=sys.stderr)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
