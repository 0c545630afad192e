"""Downloads packages of a registry, checks them, and unpacks their files.

Every package has a fixed version, a SHA-256 and a licence. If one is
unavailable, `Unavailable` is raised.
"""

import dataclasses
import hashlib
import importlib.util
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile


class Unavailable(RuntimeError):
    """Raised if a package is unavailable; the message says why."""


@dataclasses.dataclass(frozen=True)
class Package:
    """One archive of a package registry.

    `registry` is "pypi", "npm" or "debian"; `members` are prefixes
    of the paths inside it to keep.
    """

    registry: str
    name: str
    version: str
    sha256: str
    licence: str
    members: tuple

    @property
    def folder(self):
        return f"{self.name}-{self.version}".replace(":", "_")


def fetch(package, cache_dir, command=None):
    """Downloads and unpacks a package to `cache_dir`, unless already there.

    Args:
        package: Package.
        cache_dir: folder for downloads, preferably ignored by git.
        command: callable (package, folder) that downloads the archive into
            the folder; None for the registry's usual client.
    Returns: path of the folder with the unpacked members.
    Raises: Unavailable, with the reason.
    """
    target = pathlib.Path(cache_dir) / "packages" / package.folder
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        download = pathlib.Path(work) / "download"
        download.mkdir()
        (run_client if command is None else command)(package, download)
        archives = [file for file in download.iterdir() if file.is_file()]
        if len(archives) != 1:
            raise Unavailable(
                f"the download must be one archive of {package.name}. Got:"
                f" {[file.name for file in archives]}"
            )
        check(archives[0], package)
        unpacked = pathlib.Path(work) / "unpacked"
        unpacked.mkdir()
        unpack(archives[0], package, unpacked)
        try:
            os.replace(unpacked, target)
        except OSError:
            if not target.is_dir():  # else another process made it
                raise
    return target


def run_client(package, folder):
    """Downloads one archive with pip, npm or apt-get, without installing."""
    at = f"{package.name}=={package.version}"
    if package.registry == "pypi":
        if importlib.util.find_spec("pip") is None:  # as in uv's environments
            raise Unavailable(
                f"{package.name} is fetched by pip, which the environment of"
                f" {sys.executable} lacks: python -m ensurepip, or uv pip"
                " install pip"
            )
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            ".",
            at,
        ]
    elif package.registry == "npm":
        command = [
            "npm",
            "pack",
            "--silent",
            f"{package.name}@{package.version}",
        ]
    else:
        command = [
            "apt-get",
            "download",
            "-q",
            f"{package.name}={package.version}",
        ]
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{package.name} needs {command[0]}, not found here")
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        raise Unavailable(
            f"{command[0]} could not fetch {at}: {lines[-1] if lines else ''}"
        )


def check(archive, package):
    """Raises Unavailable unless the archive is the expected one."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise Unavailable(
            f"{archive.name} must have the SHA-256 {package.sha256}. Got:"
            f" {digest}"
        )


def unpack(archive, package, target):
    """Extracts a package's members, never outside `target`."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as source:
            names = [
                n for n in source.namelist() if n.startswith(package.members)
            ]
            source.extractall(target, names)
        return
    if archive.suffix == ".deb":
        stream = io.BytesIO(deb_data(archive))
    else:
        stream = io.BytesIO(archive.read_bytes())
    with tarfile.open(fileobj=stream) as source:
        for member in source:
            # Links are skipped: they could point outside and are not needed.
            if member.isfile() and member.name.startswith(package.members):
                source.extract(member, target, filter="data")


def deb_data(archive):
    """The bytes of data.tar.* in a Debian package (an `ar` archive)."""
    content = archive.read_bytes()
    if not content.startswith(b"!<arch>\n"):
        raise Unavailable(f"{archive.name} is not a Debian package")
    place = 8
    while place + 60 <= len(content):
        header = content[place : place + 60]
        size = int(header[48:58])
        if header[:16].decode().startswith("data.tar"):
            return content[place + 60 : place + 60 + size]
        place += 60 + size + size % 2  # members start at even offsets
    raise Unavailable(f"{archive.name} holds no data.tar")
