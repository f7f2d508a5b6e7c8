"""Roots to be root in: this machine's file system, each with a layer in memory over it.

They are made in mount and process namespaces that end with the test; whatever is written there, or runs there, is gone
then. The kernel asks for root rights (or for sudo without a password) to make them.
"""

import os
import subprocess
import sys
from pathlib import Path

AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
PYTHON = Path(sys.base_prefix).resolve() / f"bin/python3.{sys.version_info.minor}"
NEW_ROOT = """
root={root}; layer={root}-layer; mkdir -p $root $layer/upper $layer/work
mount -t overlay overlay -o lowerdir=/,upperdir=$layer/upper,workdir=$layer/work $root
mount --rbind /dev $root/dev
mount -t proc proc $root/proc
mount -t tmpfs tmpfs $root/tmp
ln -sf {python} $(dirname $root{python})/python
for folder in {parents}; do chmod a+x $root$folder; done
rm -f $root/etc/resolv.conf; cat /etc/resolv.conf >$root/etc/resolv.conf
"""

path = f"{PYTHON.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def new_root(root: str) -> str:
    """Shell lines that make a root below /mnt, and call it $root; everybody may start the Python of the tests in it."""
    return NEW_ROOT.format(root=root, python=PYTHON, parents=" ".join(map(str, PYTHON.parents)))


def run(script: str) -> str:
    """What a script prints that may make roots; it must end well."""
    script = f"set -eu\nmount -t tmpfs -o size=8g,mode=755 tmpfs /mnt\n{script}"
    done = subprocess.run(
        [*AS_ROOT, "unshare", "--mount-proc", "--pid", "--fork", "--kill-child", "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout
