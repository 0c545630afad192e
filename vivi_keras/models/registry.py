"""Finds the folder of a module by name, path or URL, and checks its hash."""

import http.client
import os
import pathlib
import re
import shutil
import tempfile
import urllib.request
import warnings

import yaml

from vivi_keras import files

_REQUIRED = ("name", "version", "sha256")
_URL_SCHEMES = ("https", "http", "file")
_SHA256 = re.compile("[0-9a-f]{64}")
# Time to wait for a server's answer. [O]
TIMEOUT_SECONDS = 20


def bundled_registry():
    """Path of the registry.yaml that comes with the package."""
    from vivi_keras import hub_modules

    return pathlib.Path(hub_modules.__file__).parent / "registry.yaml"


def read_registry(path=None):
    """Reads the entries of a registry, in its order.

    Args:
        path: path of a registry.yaml; None for the bundled one.
    Returns: dict "name/version" -> dict of the entry.
    Raises: FileNotFoundError if there is no such file; ValueError for invalid
        or incomplete entries.
    """
    path = pathlib.Path(bundled_registry() if path is None else path)
    if not path.is_file():
        raise FileNotFoundError(f"registry must be a file. Got: no file {path}")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        modules = (document or {}).get("modules") or []
        entries = {_checked(entry): entry for entry in modules}
    except (AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"{path} must be a registry with a list `modules`: {error}"
        ) from error
    if len(entries) < len(modules):
        raise ValueError(
            f"{path} must hold each name and version once. Got:"
            f" {[_checked(entry) for entry in modules]}"
        )
    return entries


def _checked(entry):
    """Checks an entry and returns its key, "name/version"."""
    missing = [key for key in _REQUIRED if key not in entry]
    if "path" not in entry and "archive" not in entry:
        missing.append("path or archive")
    if "archive" in entry and "archive_sha256" not in entry:
        missing.append("archive_sha256")
    if missing:
        raise ValueError(
            f"Every entry must have {', '.join(missing)}. Got: {entry}"
        )
    for key in ("sha256", "archive_sha256"):
        if key in entry:
            _check_digest(entry[key])
    if type(entry["version"]) is not int:
        raise ValueError(f"version must be a whole number. Got: {entry}")
    return f"{entry['name']}/{entry['version']}"


def _check_digest(sha256):
    """Raises ValueError for text that is not a SHA-256, such as a path."""
    if not _SHA256.fullmatch(str(sha256)):
        raise ValueError(
            f"A SHA-256 must be of 64 digits 0-9 and a-f. Got: {sha256!r}"
        )


def is_registered(name, registry=None):
    """Whether `name` ("name/version" or "name") is in a registry."""
    return _newest(name, read_registry(registry)) is not None


def find(name, registry=None, cache=None, sha256=None):
    """Returns the local folder of a SavedModel; downloads it if needed.

    Args:
        name: path of a folder or .tar.gz, a registered "name/version" or
            "name" (newest version), or a URL of a .tar.gz.
        registry: path of a registry.yaml; None for the bundled one.
        cache: folder for unpacked archives; None for $VIVI_KERAS_CACHE or
            ~/.cache/vivi_keras.
        sha256: expected hex SHA-256 of the archive; required for a URL.
    Returns: str, path of the folder.
    Raises: FileNotFoundError for an unknown name or a missing folder;
        ConnectionError for a URL that cannot be read;
        ValueError for a wrong hash, a bad archive or a folder without a
        SavedModel; OSError for a cache that cannot be written.
    """
    folder = _find(os.fspath(name), registry, cache, sha256)
    if not os.path.isfile(os.path.join(folder, "saved_model.pb")):
        raise ValueError(
            f"module must be the folder of a SavedModel. Got: {folder!r}, which"
            " holds no saved_model.pb"
        )
    return folder


def _find(name, registry, cache, sha256):
    is_url = urllib.parse.urlsplit(name).scheme in _URL_SCHEMES
    if sha256 is not None:
        _check_digest(sha256)
        if not (is_url or os.path.isfile(name)):
            raise ValueError(
                "sha256 must be given only with an archive or a URL. Got:"
                f" {name!r}"
            )
    if os.path.isdir(name):
        return name
    if is_url:
        if sha256 is None:
            raise ValueError(
                f"sha256 of the archive must be given with the URL {name!r}: a"
                " module is a program, and a URL may change."
            )
        return _fetch(name, sha256, cache)
    if os.path.isfile(name):
        found = files.file_sha256(name)
        _compare(name, found if sha256 is None else sha256, found)
        return _cached(found, cache) or _unpack(name, found, cache)
    entries = read_registry(registry)
    key = _newest(name, entries)
    if key is None:
        raise FileNotFoundError(
            "module must be a folder, a .tar.gz, a URL or a registered name."
            f" Got: {name!r}. Registered: {', '.join(entries) or 'none'}"
        )
    return _find_entry(key, entries[key], registry, cache)


def cache_directory(cache=None):
    """The folder for downloads: unpacked archives and packages."""
    if cache is not None:
        return pathlib.Path(cache)
    if "VIVI_KERAS_CACHE" in os.environ:
        return pathlib.Path(os.environ["VIVI_KERAS_CACHE"])
    return pathlib.Path.home() / ".cache" / "vivi_keras"


def _newest(name, entries):
    """The key of `name`, by default its newest version; None if unknown."""
    if name in entries:
        return name
    versions = [
        (entry["version"], key)
        for key, entry in entries.items()
        if entry["name"] == name
    ]
    return max(versions)[1] if versions else None


def _find_entry(key, entry, registry, cache):
    """The folder of a registry's entry, after checking its hash."""
    if "path" in entry:
        root = bundled_registry() if registry is None else registry
        folder = pathlib.Path(root).parent / entry["path"]
        if not folder.is_dir():
            raise FileNotFoundError(
                f"The module {key} must be in {folder}. Got: no such folder"
            )
    else:
        folder = _fetch(entry["archive"], entry["archive_sha256"], cache)
    _compare(key, entry["sha256"], files.tree_sha256(folder))
    return str(folder)


def _fetch(url, sha256, cache):
    """Downloads an archive once, checks its hash, and unpacks it."""
    if urllib.parse.urlsplit(url).scheme not in _URL_SCHEMES:
        raise ValueError(
            f"The scheme of a URL must be one of {', '.join(_URL_SCHEMES)}."
            f" Got: {url!r}"
        )
    folder = _cached(sha256, cache)
    if folder is not None:
        return folder
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as source:
                shutil.copyfileobj(source, file, 1 << 20)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ConnectionError(
                f"{url!r} must lead to an archive. Got: {error}"
            ) from error
        file.flush()
        _compare(url, sha256, files.file_sha256(file.name))
        return _unpack(file.name, sha256, cache)


def _cached(sha256, cache):
    """The unpacked archive with this hash, or None; removes a damaged one."""
    folder = cache_directory(cache) / sha256
    if not folder.is_dir():
        return None
    note = _note(folder)
    if note.is_file() and note.read_text() == files.tree_sha256(folder):
        return str(folder)
    warnings.warn(
        f"{folder} was changed or damaged, so it is removed and unpacked again",
        stacklevel=2,
    )
    shutil.rmtree(folder)
    return None


def _unpack(archive, sha256, cache):
    """Unpacks an archive into the cache; returns the folder."""
    folder = cache_directory(cache) / sha256
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".unpack-", dir=folder.parent
        ) as aside:
            module = files.unpack(archive, os.path.join(aside, "module"))
            # Written before the folder gets its name: no folder lacks its note.
            note = pathlib.Path(aside, "note")
            note.write_text(files.tree_sha256(module))
            os.replace(note, _note(folder))
            try:
                os.replace(module, folder)
            except OSError:
                if not folder.is_dir():  # else another process made it
                    raise
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{error.strerror} (to use another cache, set cache= or"
            " $VIVI_KERAS_CACHE)",
            error.filename,
        ) from error
    return str(folder)


def _note(folder):
    """The file beside a cached module that has the hash of its files."""
    return folder.with_name(f"{folder.name}.tree_sha256")


def _compare(what, expected, got):
    if expected != got:
        raise ValueError(
            f"{what} must have the SHA-256 {expected}. Got: {got}: changed or"
            " damaged, not loaded"
        )
