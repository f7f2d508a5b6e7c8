"""Print the fenced block that stands under `<!-- run: NAME -->` in a Markdown file.

    python3 .ci/marked_block.py README.md test

So the commands that a reader copies are the ones that are tested. Exit code 1 where there is not exactly one.
"""

import re
import sys
from pathlib import Path


def marked_blocks(text: str, name: str) -> list[str]:
    """The blocks marked with that name."""
    form = rf"^<!-- run: {re.escape(name)} -->\n+^```[a-z]*\n(.*?)^```$"
    return re.findall(form, text, re.MULTILINE | re.DOTALL)


def main() -> None:
    path, name = Path(sys.argv[1]), sys.argv[2]
    found = marked_blocks(path.read_text(encoding="utf-8"), name)
    if len(found) != 1:
        sys.exit(f"{path} has {len(found)} blocks marked '<!-- run: {name} -->', not one")
    sys.stdout.write(found[0])


if __name__ == "__main__":
    main()
