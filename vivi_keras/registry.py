"""Where the modules of a registry lie: names -> folders, hashes checked."""

import os
import pathlib
import tempfile
import urllib.parse
import urllib.request

import yaml

from vivi_keras import archives

_REQUIRED = ("name", "version", "sha256")
_URL_SCHEMES = ("https", "http", "file")


def bundled_registry():
    """Path of the registry.yaml that comes with the package."""
    from vivi_keras import hub_modules

    return pathlib.Path(hub_modules.__file__).parent / "registry.yaml"


def read_registry(path=None):
    """The entries of a registry, in its order.

    Args:
        path: path of a registry.yaml; None for the bundled one.
    Returns: dict "name/version" -> dict of the entry.
    Raises: FileNotFoundError; ValueError for entries without what they need.
    """
    path = pathlib.Path(bundled_registry() if path is None else path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a registry, found no file {path}")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = {}
    for entry in (document or {}).get("modules") or []:
        missing = [key for key in _REQUIRED if key not in entry]
        if "path" not in entry and "archive" not in entry:
            missing.append("path or archive")
        if "archive" in entry and "archive_sha256" not in entry:
            missing.append("archive_sha256")
        if missing:
            raise ValueError(
                f"expected {', '.join(missing)} in every entry of {path}, got"
                f" {entry}"
            )
        entries[f"{entry['name']}/{entry['version']}"] = entry
    return entries


def is_registered(name, registry=None):
    """Whether `name` ("name/version" or "name") stands in a registry."""
    return _newest(name, read_registry(registry)) is not None


def find(name, registry=None, cache=None, sha256=None):
    """The local folder of a module, fetched and checked where needed.

    Args:
        name: path of a folder or .tar.gz, a registered "name/version" or
            "name" (newest version), or a URL of a .tar.gz.
        registry: path of a registry.yaml; None for the bundled one.
        cache: folder for unpacked archives; None for $VIVI_KERAS_CACHE or
            ~/.cache/vivi_keras.
        sha256: hex digest that an archive's bytes must have; a URL needs it.
    Returns: str, path of the folder.
    Raises: FileNotFoundError; ValueError for a wrong hash or bad archive.
    """
    name = os.fspath(name)
    if os.path.isdir(name):
        return name
    if urllib.parse.urlsplit(name).scheme in _URL_SCHEMES:
        if sha256 is None:
            raise ValueError(
                f"expected sha256 of the archive with the URL {name!r}, got"
                " none: a module is a program, and a URL may change"
            )
        return _fetch(name, sha256, cache)
    if os.path.isfile(name):
        found = archives.file_sha256(name)
        _compare(name, found if sha256 is None else sha256, found)
        return _unpacked(name, found, cache)
    entries = read_registry(registry)
    key = _newest(name, entries)
    if key is None:
        raise FileNotFoundError(
            "expected a folder, a .tar.gz, a URL or a registered module, got"
            f" {name!r}; registered: {', '.join(entries) or 'none'}"
        )
    return _find_entry(key, entries[key], registry, cache)


def cache_directory(cache=None):
    """The folder that unpacked archives are kept in."""
    if cache is not None:
        return pathlib.Path(cache)
    if "VIVI_KERAS_CACHE" in os.environ:
        return pathlib.Path(os.environ["VIVI_KERAS_CACHE"])
    return pathlib.Path.home() / ".cache" / "vivi_keras"


def _newest(name, entries):
    """The key of `name`, its newest version if it names none, or None."""
    if name in entries:
        return name
    versions = [
        (int(entry["version"]), key)
        for key, entry in entries.items()
        if entry["name"] == name
    ]
    return max(versions)[1] if versions else None


def _find_entry(key, entry, registry, cache):
    """The checked folder of one entry of a registry."""
    if "path" in entry:
        root = bundled_registry() if registry is None else registry
        folder = pathlib.Path(root).parent / entry["path"]
        if not folder.is_dir():
            raise FileNotFoundError(
                f"expected the module {key} in {folder}, found no such folder"
            )
    else:
        folder = _fetch(entry["archive"], entry["archive_sha256"], cache)
    _compare(key, entry["sha256"], archives.tree_sha256(folder))
    return str(folder)


def _fetch(url, sha256, cache):
    """Downloads an archive once, checks its bytes, and unpacks it."""
    if urllib.parse.urlsplit(url).scheme not in _URL_SCHEMES:
        raise ValueError(f"expected a URL with {_URL_SCHEMES}, got {url!r}")
    folder = cache_directory(cache) / sha256
    if folder.is_dir():
        return str(folder)
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        with urllib.request.urlopen(url) as source:
            while chunk := source.read(1 << 20):
                file.write(chunk)
        file.flush()
        _compare(url, sha256, archives.file_sha256(file.name))
        return _unpacked(file.name, sha256, cache)


def _unpacked(archive, sha256, cache):
    folder = cache_directory(cache) / sha256
    if not folder.is_dir():
        archives.unpack(archive, folder)
    return str(folder)


def _compare(what, expected, got):
    if expected != got:
        raise ValueError(
            f"expected SHA-256 {expected} of {what}, got {got}: changed or"
            " damaged, not loaded"
        )
