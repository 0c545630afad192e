"""Helpers for files: archives, hashes, locks, JSON, and paths as text."""

import atexit
import contextlib
import csv
import functools
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import socket
import tarfile
import tempfile
import zlib

_CHUNK_BYTES = 1 << 20
# Most bytes that an archive may unpack to: a few kB can fill any disk. [O]
MAX_BYTES = 8 << 30
MAX_MEMBERS = 10_000
_PATTERN = set("*?[\\")  # special in TensorFlow's patterns of paths
# Errors from reading an archive that is damaged or contradicts itself.
_DAMAGED = (
    tarfile.TarError,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)


def file_sha256(path):
    """Hex SHA-256 of one file's bytes.

    Args:
        path: path of a regular file.
    Returns: str of 64 hex digits.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def tree_sha256(directory, exclude=()):
    """Hex SHA-256 over the names and bytes of all files under a folder.

    The hash depends only on relative names (with "/") and contents, so a copy
    of the folder with other dates and owners has the same hash.

    Args:
        directory: path of a folder.
        exclude: relative names, with "/", to leave out.
    Returns: str of 64 hex digits.
    Raises: NotADirectoryError: `directory` is not a folder.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise NotADirectoryError(
            f"directory must be a folder. Got: {str(directory)!r}"
        )
    digest = hashlib.sha256()
    for name in _file_names(directory):
        if name not in exclude:
            line = f"{file_sha256(directory / name)}  {name}\n"
            digest.update(line.encode())
    return digest.hexdigest()


def pack(directory, archive):
    """Writes a folder's files as a .tar.gz, with names relative to the folder.

    Dates, owners and modes are fixed, so that they reveal nothing about the
    machine. The files are at the top of the archive, as TF Hub expects.

    Args:
        directory: path of the folder to pack.
        archive: path of the .tar.gz to write.
    Returns: the path written.
    """
    directory = pathlib.Path(directory)
    with tarfile.open(archive, "w:gz") as tar:
        for name in _file_names(directory):
            info = tarfile.TarInfo(name)
            info.size = (directory / name).stat().st_size
            info.mode = 0o644
            with open(directory / name, "rb") as file:
                tar.addfile(info, file)
    return str(archive)


def unpack(archive, directory):
    """Unpacks a .tar.gz into a new folder, or leaves nothing behind.

    Args:
        archive: path of the .tar.gz.
        directory: the folder to create; must not exist.
    Returns: the folder's path.
    Raises:
        FileExistsError: `directory` exists.
        ValueError: the archive is damaged or truncated, holds too much, or
            one of its members is a link or a device or lies outside the
            folder.
        OSError: the archive cannot be read or the folder cannot be written.
    """
    directory = pathlib.Path(directory)
    if directory.exists():
        raise FileExistsError(f"{str(directory)!r} exists already")
    # Unpacked under a temporary name and then renamed, so that an interrupted
    # run leaves no incomplete folder under the final name.
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = tempfile.mkdtemp(prefix=".unpack-", dir=directory.parent)
    try:
        _extract_members(archive, pathlib.Path(aside))
        os.chmod(aside, 0o755)
        os.replace(aside, directory)
    except _DAMAGED as error:
        raise ValueError(
            f"archive must be a whole .tar.gz. Got: {str(archive)!r}, which is"
            f" truncated or damaged: {error}"
        ) from error
    except OSError as error:
        if error.errno and error.filename is None:  # e.g. the disk is full
            error.filename = str(directory.parent)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return str(directory)


def _extract_members(archive, directory):
    """Writes the archive's files and folders; rejects every other member."""
    num_bytes = 0
    with (
        gzip.open(archive) as stream,
        tarfile.open(fileobj=stream, mode="r:") as tar,
    ):
        for index, member in enumerate(tar):
            # The header's size: an archive bomb is rejected before writing.
            num_bytes += member.size
            if index >= MAX_MEMBERS or num_bytes > MAX_BYTES:
                raise ValueError(
                    f"An archive must hold at most {MAX_MEMBERS:,} files and"
                    f" {MAX_BYTES:,} bytes. Got: more, {num_bytes:,} bytes up"
                    f" to {member.name!r}"
                )
            target = _target(member, directory)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source:
                    _copy(source, target, member)
        # gzip checks its checksum at the end, which tarfile does not read.
        if len(stream.read(_CHUNK_BYTES)) == _CHUNK_BYTES:
            raise tarfile.ReadError("more follows after its end")


def _target(member, directory):
    """Checks a member and returns the path to write it to."""
    # tarfile's own filters may be missing before Python 3.12.
    if not (member.isfile() or member.isdir()):
        raise ValueError(
            "An archive must hold only files and folders. Got: the link or"
            f" device {member.name!r}"
        )
    name = pathlib.PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        raise ValueError(
            "An archive must hold only names inside its own folder. Got:"
            f" {member.name!r}"
        )
    return directory / name


def _copy(source, target, member):
    with open(target, "wb") as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)
    if target.stat().st_size != member.size:
        raise EOFError(f"{member.name!r} is cut short")


def _file_names(directory):
    """Relative names, with "/", of all files under a folder, sorted."""
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file()
    )


@contextlib.contextmanager
def write_whole(path):
    """Gives a file its name only once it is complete.

        with files.write_whole("scores.json") as partial:
            partial.write_text(text)

    Args:
        path: file to write; its folder is created, an older file is replaced.
    Yields: path beside it to write to; it is deleted if an error occurs.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, content, indent=1, sort_keys=True):
    """Writes JSON whole or not at all; arguments as of `json.dumps`."""
    text = json.dumps(content, indent=indent, sort_keys=sort_keys) + "\n"
    write_text(path, text)


def write_text(path, text):
    """Writes a file of UTF-8 text, whole or not at all."""
    with write_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path, columns, rows):
    """Writes a CSV file of a header and rows, whole or not at all."""
    with (
        write_whole(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def read_json(path):
    """Reads a JSON file; returns None if it does not exist.

    Raises: ValueError: the file is damaged.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def check_output(path):
    """Creates a folder for results, to find errors before hours of work.

    Raises: OSError: the folder cannot be created or written to.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f"{os.getpid()}.part"
    probe.write_bytes(b"")
    probe.unlink()


def printable_path(path):
    """A path as text that can be stored and shown anywhere.

    Bytes that are not UTF-8, and control characters, are escaped.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


def tensorflow_path(path) -> str:
    """A path to the same place that TensorFlow does not take for a pattern.

    TensorFlow takes the path of a checkpoint or a SavedModel as a pattern:
    it does not find "run [1]". Such a path is replaced by one through a link,
    which exists until the process ends.

    Args:
        path: path of a file or folder, or the start of several files' paths.
    """
    text = os.fspath(path)
    if not set(text) & _PATTERN or "://" in text:
        return text
    folder, name = os.path.split(os.path.abspath(text))
    if set(name) & _PATTERN:
        folder, name = os.path.join(folder, name), ""
    return os.path.join(_link_to(folder), name)


@functools.cache
def _link_to(folder):
    # Removed when the process ends; the SavedModel of a loaded module may be
    # read until then.
    links = tempfile.TemporaryDirectory(prefix="vivi_keras_")
    atexit.register(links.cleanup)
    link = os.path.join(links.name, "link")
    os.symlink(folder, link)
    return link


@contextlib.contextmanager
def locked(folder, name="lock"):
    """Locks a folder, which is made if needed, within a `with` block.

    The lock also ends if the process ends. Where the system has no file locks
    (Windows), nothing is locked.

    Args:
        folder: folder that only one run may write to.
        name: file in it that holds the lock and says who has it.
    Raises: ValueError: another process has locked it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by another run ({file.read().strip()})."
                " Stop that run, or use another folder."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
