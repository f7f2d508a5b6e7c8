"""The Debian package: built, looked at by Debian's own linter, installed and removed by dpkg in a root of its own."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "deploy/deb/build.sh"
LIFE = """
chroot $root /usr/bin/env -i {environment} dpkg --force-depends --install /tmp/{package}
chroot $root /usr/bin/env -i {environment} gpuledger --version
chroot $root stat -c "%U %a" /var/lib/gpuledger
ls $root/etc/systemd/system/gpuledger-collector.service
touch $root/var/lib/gpuledger/kept
chroot $root /usr/bin/env -i {environment} dpkg --remove gpuledger
ls $root/var/lib/gpuledger
[ ! -e $root/opt/gpuledger ] && [ ! -e $root/usr/local/bin/gpuledger ] && echo 'the program is gone'
"""


@pytest.fixture(scope="session")
def package(make_wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deb")
    subprocess.run([BUILD, make_wheel("3.0.0"), folder], check=True, capture_output=True)
    return folder / "gpuledger_3.0.0_all.deb"


def test_the_package_holds_the_wheel_the_scripts_and_the_units(package, tmp_path):
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    share = tmp_path / "usr/share/gpuledger"
    held = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    expected = {"wheels/gpuledger-3.0.0-py3-none-any.whl"}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "deploy").glob("*.sh")}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "deploy").glob("systemd/*.service")}
    assert held == expected
    shown = subprocess.run([share / "deploy/install.sh", "--help"], capture_output=True, text=True, check=True)
    assert "install.sh (--wheel FILE" in shown.stdout


def test_debians_linter_finds_nothing(package):
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", package], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_dpkg_installs_a_command_a_user_and_units_and_removes_all_but_the_ledger(package, dependencies, roots):
    environment = f"PATH={roots.path} PYTHONPATH=/mnt PIP_NO_INDEX=1 HOME=/root LC_ALL=C"
    output = roots.run(
        f"{roots.new_root('/mnt/machine')}mount --bind {dependencies} $root/mnt\ncp {package} $root/tmp\n"
        + LIFE.format(environment=environment, package=package.name)
    )
    assert "gpuledger 3.0.0" in output
    assert "gpuledger 750" in output
    assert output.splitlines()[-2:] == ["kept", "the program is gone"]
