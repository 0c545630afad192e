"""Modules by name, archive and URL; archives that harm; caches that broke.

No module is loaded but in one test: what is tested are files and hashes.
"""

import hashlib
import io
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import keras
import numpy as np
import pytest

import vivi_keras
from vivi_keras import files
from vivi_keras.models import registry


@pytest.fixture
def module(tmp_path):
    """A folder of files that stands for a module's."""
    folder = tmp_path / "module"
    (folder / "variables").mkdir(parents=True)
    random = np.random.default_rng(0)
    (folder / "saved_model.pb").write_bytes(random.bytes(5000))
    (folder / "variables" / "data").write_bytes(random.bytes(70_000))
    return folder


@pytest.fixture
def archive(module, tmp_path):
    return pathlib.Path(files.pack(module, tmp_path / "m.tar.gz"))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def write_registry(tmp_path, *entries):
    lines = "".join(f"- {entry}\n" for entry in entries)
    (tmp_path / "registry.yaml").write_text(f"modules:\n{lines}")
    return tmp_path / "registry.yaml"


def entry(module, place, name="m", version=1):
    digest = files.tree_sha256(module)
    return f"{{name: {name}, version: {version}, sha256: {digest}, {place}}}"


def by_archive(archive):
    digest = files.file_sha256(archive)
    return f"archive: 'file://{archive}', archive_sha256: {digest}"


def test_registered_modules_are_found_by_name(module, archive, cache, tmp_path):
    file = write_registry(
        tmp_path,
        entry(module, f"path: {module}", version=9),
        entry(module, by_archive(archive), version=10),
        entry(module, "path: elsewhere", name="gone"),
    )
    for name, in_cache in (("m/9", False), ("m/10", True), ("m", True)):
        folder = registry.find(name, file, cache)
        assert files.tree_sha256(folder) == files.tree_sha256(module)
        assert pathlib.Path(folder).is_relative_to(cache) == in_cache
    with pytest.raises(FileNotFoundError, match="no such folder"):
        registry.find("gone/1", file)
    for name in ("other", "m/11", "M/9", ""):
        with pytest.raises(FileNotFoundError, match="Registered: m/9, m/10"):
            registry.find(name, file)
    (module / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(ValueError, match="m/9.*changed or damaged"):
        registry.find("m/9", file)


def test_a_module_loads_by_the_name_of_its_registry(tmp_path):
    encoder = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    path = vivi_keras.export_encoder(encoder, tmp_path / "path")
    archive = files.pack(path, tmp_path / "m.tar.gz")
    file = write_registry(tmp_path, entry(path, by_archive(archive)))
    layer = vivi_keras.load("m", registry=file, cache=tmp_path / "cache")
    images = np.random.default_rng(1).random((2, 40, 56, 3), "float32")
    np.testing.assert_allclose(layer(images), encoder(images), atol=1e-6)
    # Its config names the folder: the name means nothing without the registry.
    assert layer.get_config()["path"].startswith(str(tmp_path / "cache"))


GOOD = "name: m, version: 1, path: p, sha256: " + 64 * "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modules: [", "must be a registry"),
        ("- modules", "must be a registry"),
        ("modules: 3", "must be a registry"),
        ("modules: [3]", "must be a registry"),
        ("modules: \x00", "must be a registry"),
        ("modules: [{name: m}]", "must have version, sha256, path or archive"),
        (f"modules: [{{{GOOD}}}, {{{GOOD}}}]", "name and version once"),
        (f"modules: [{{{GOOD}0}}]", "SHA-256 must be of 64 digits"),
        (
            f"modules: [{{{GOOD.replace('n: 1', 'n: one')}}}]",
            "version must be a whole number",
        ),
        (f"modules: [{{{GOOD}, archive: u}}]", "must have archive_sha256"),
        (
            f"modules: [{{{GOOD}, archive: u, archive_sha256: ../../x}}]",
            "SHA-256 must be of 64 digits",
        ),
    ],
)
def test_a_bad_registry_is_told_with_its_path(tmp_path, text, message):
    file = tmp_path / "registry.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        registry.find("m", file)
    assert str(file) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="Got: no file"):
        registry.find("m", tmp_path / "none.yaml")


def test_hashes_are_compared_and_must_be_hashes(module, archive, cache):
    url = f"file://{archive}"
    digest = files.file_sha256(archive)
    for place in (archive, url):
        found = registry.find(place, cache=cache, sha256=digest)
        assert files.tree_sha256(found) == files.tree_sha256(module)
        with pytest.raises(ValueError, match="changed or damaged"):
            registry.find(place, cache=cache, sha256="0" * 64)
        with pytest.raises(ValueError, match="SHA-256 must be of 64 digits"):
            registry.find(place, cache=cache, sha256=f"../cache/{digest}")
    with pytest.raises(ValueError, match="sha256 of the archive must be given"):
        registry.find(url, cache=cache)
    for name in (module, "vivi-r14w025-film/1"):
        with pytest.raises(ValueError, match="only with an archive or a URL"):
            registry.find(name, sha256=digest)


def test_a_url_that_does_not_answer_fails_soon(monkeypatch, cache):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(registry, "TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:  # never answers
        silent = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as other:
            closed = other.getsockname()[1]
        start = time.monotonic()
        for url, message in (
            (f"http://127.0.0.1:{silent}/m.tar.gz", "timed out"),
            (f"http://127.0.0.1:{closed}/m.tar.gz", "refused"),
            ("http://", "no host"),
            ("file:///no/such.tar.gz", "No such file"),
        ):
            with pytest.raises(ConnectionError, match=message) as caught:
                registry.find(url, cache=cache, sha256="0" * 64)
            assert repr(url) in str(caught.value)
    assert time.monotonic() - start < 5
    assert not cache.exists()


def test_processes_that_unpack_at_once_all_get_the_module(
    module, archive, cache
):
    program = (
        "import sys; from vivi_keras import files;"
        " from vivi_keras.models import registry;"
        "folder = registry.find(sys.argv[1], cache=sys.argv[2]);"
        "print(files.tree_sha256(folder))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, archive, cache],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = {process.communicate()[0].strip() for process in running}
    assert outputs == {files.tree_sha256(module)}
    assert not [p for p in running if p.returncode]
    assert not list(cache.glob(".unpack-*"))


def test_the_slower_of_two_takes_the_faster_one_s(
    module, archive, cache, monkeypatch
):
    first = registry.find(archive, cache=cache)
    monkeypatch.setattr(registry, "_cached", lambda *arguments: None)
    assert registry.find(archive, cache=cache) == first
    assert files.tree_sha256(first) == files.tree_sha256(module)


@pytest.mark.parametrize("harm", ["changed", "half", "added", "no note"])
def test_a_harmed_cache_is_fetched_anew(module, archive, cache, harm):
    digest = files.file_sha256(archive)
    url = f"file://{archive}"
    folder = pathlib.Path(registry.find(url, cache=cache, sha256=digest))
    if harm == "changed":
        (folder / "variables" / "data").write_bytes(b"other weights")
    elif harm == "half":
        (folder / "variables" / "data").unlink()
    elif harm == "added":
        (folder / "assets.extra").mkdir()
        (folder / "assets.extra" / "vivi.json").write_text("{}")
    else:
        folder.with_name(f"{digest}.tree_sha256").unlink()
    with pytest.warns(UserWarning, match="changed or damaged"):
        again = registry.find(url, cache=cache, sha256=digest)
    assert files.tree_sha256(again) == files.tree_sha256(module)


def test_a_cache_that_cannot_be_written_is_named(archive):
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        shutil.copy(archive, folder / "m.tar.gz")
        (folder / "cache").mkdir()
        for path, mode in (("cache", 0o555), ("m.tar.gz", 0o644), ("", 0o755)):
            (folder / path).chmod(mode)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)  # root may write everywhere
            with pytest.raises(PermissionError, match="VIVI_KERAS_CACHE") as e:
                registry.find(folder / "m.tar.gz", cache=folder / "cache")
        finally:
            if root:
                os.seteuid(0)
        assert str(folder / "cache") in str(e.value)
        with pytest.raises(NotADirectoryError, match="VIVI_KERAS_CACHE"):
            registry.find(archive, cache=folder / "m.tar.gz" / "cache")
    finally:
        shutil.rmtree(folder)


def test_a_full_disk_is_told_as_such(archive, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "out").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(OSError, match="out") as caught:
            files.unpack(archive, tmp_path / "out" / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(caught.value, ValueError)
    assert not list((tmp_path / "out").iterdir())


def test_an_archive_cut_or_changed_anywhere_leaves_nothing(
    module, archive, cache
):
    whole = archive.read_bytes()
    expected = files.tree_sha256(module)
    random = np.random.default_rng(0)
    for place in [*random.integers(0, len(whole), 60), 0, 1, len(whole) - 1]:
        archive.write_bytes(whole[:place])
        with pytest.raises(ValueError, match="truncated or damaged"):
            registry.find(archive, cache=cache)
        changed = bytearray(whole)
        changed[place] ^= 1 << int(random.integers(8))
        archive.write_bytes(changed)
        try:
            folder = registry.find(archive, cache=cache)
        except ValueError as error:
            assert "truncated or damaged" in str(error)
        else:  # the date, say, in the archive's head
            assert place < 10 and files.tree_sha256(folder) == expected
            shutil.rmtree(cache)
    assert not cache.exists() or list(cache.iterdir()) == []


def write_archive(file, *members):
    """Members are (TarInfo fields, bytes)."""
    with tarfile.open(file, "w:gz") as tar:
        for fields, content in members:
            info = tarfile.TarInfo(fields["name"])
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../out/x"},
        {"name": "a/../../x"},
        {"name": "/tmp/x"},
        {"name": "a\\..\\x"},
        {"name": "x", "type": tarfile.SYMTYPE, "linkname": "/etc"},
        {"name": "x", "type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
        {"name": "x", "type": tarfile.CHRTYPE},
        {"name": "x", "type": tarfile.BLKTYPE},
        {"name": "x", "type": tarfile.FIFOTYPE},
    ],
)
def test_an_archive_may_not_leave_its_folder(tmp_path, fields):
    write_archive(
        tmp_path / "bad.tar.gz", ({"name": "good"}, b"1"), (fields, b"")
    )
    with pytest.raises(ValueError, match="must hold only") as caught:
        files.unpack(tmp_path / "bad.tar.gz", tmp_path / "out")
    assert repr(fields["name"]) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tar.gz"]


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    """A link, then a file through it: the link is refused first."""
    write_archive(
        tmp_path / "bad.tar.gz",
        ({"name": "a", "type": tarfile.SYMTYPE, "linkname": ".."}, b""),
        ({"name": "a/escaped"}, b"1"),
    )
    with pytest.raises(ValueError, match="link or device 'a'"):
        files.unpack(tmp_path / "bad.tar.gz", tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


def test_an_archive_that_contradicts_itself_is_damaged(tmp_path):
    for members in (
        [({"name": "a"}, b"1"), ({"name": "a/b"}, b"2")],
        [({"name": "a/b"}, b"1"), ({"name": "a"}, b"2")],
        [({"name": "."}, b"1")],
    ):
        write_archive(tmp_path / "bad.tar.gz", *members)
        with pytest.raises(ValueError, match="truncated or damaged"):
            files.unpack(tmp_path / "bad.tar.gz", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tar.gz"]


def test_bombs_are_refused_by_their_headers(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.tar.gz"
    with tarfile.open(bomb, "w:gz") as tar:
        for name, size in (("a", 0), ("b", files.MAX_BYTES + 1)):
            info = tarfile.TarInfo(name)
            info.size = size  # says the head; nothing follows
            tar.fileobj.write(info.tobuf())
    with pytest.raises(ValueError, match="bytes. Got: more.*'b'"):
        files.unpack(bomb, tmp_path / "out")
    monkeypatch.setattr(files, "MAX_MEMBERS", 50)
    write_archive(bomb, *[({"name": f"f{n}"}, b"") for n in range(51)])
    with pytest.raises(ValueError, match="at most 50 files"):
        files.unpack(bomb, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bomb.tar.gz"]


def test_what_is_no_gzip_or_not_there_is_told(tmp_path):
    (tmp_path / "m.tar.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="truncated or damaged"):
        files.unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="none"):
        files.unpack(tmp_path / "none", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        files.unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        files.tree_sha256(tmp_path / "m.tar.gz")


def test_hashes_are_those_that_other_tools_give(module, tmp_path):
    digest = hashlib.sha256((module / "saved_model.pb").read_bytes())
    assert files.file_sha256(module / "saved_model.pb") == digest.hexdigest()
    copy = shutil.copytree(module, tmp_path / "copy")
    os.utime(copy / "saved_model.pb", (0, 0))
    assert files.tree_sha256(copy) == files.tree_sha256(module)
    (copy / "saved_model.pb").rename(copy / "other.pb")
    assert files.tree_sha256(copy) != files.tree_sha256(module)
