"""The offline suite's sources, its packages and its stored form."""

import gzip
import hashlib
import io
import pickle
import tarfile

import data_helpers
import numpy as np
import pytest

from vivi_keras.evaluation.tasks import (
    builtin,
    offline_tasks,
    offline_tfds,
    packages,
    readers,
    task,
)


def test_groups_and_names():
    assert len(offline_tasks.SOURCES) >= 8
    for group in offline_tasks.GROUPS:
        assert len(offline_tasks.names([group])) >= 3
    assert offline_tasks.names(["all"]) == list(offline_tasks.SOURCES)
    with pytest.raises(ValueError, match="nothing"):
        offline_tasks.names(["nothing"])


def test_restricted_unpickler():
    arrays = [np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones(2)]
    found = packages.load_arrays(io.BytesIO(pickle.dumps(arrays)))
    np.testing.assert_array_equal(found[0], arrays[0])
    with pytest.raises(pickle.UnpicklingError, match="NumPy arrays"):
        packages.load_arrays(io.BytesIO(pickle.dumps(print)))


def archive(path, names):
    with tarfile.open(path, "w:gz") as target:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            target.addfile(info, io.BytesIO(b"abc"))


def own_package(monkeypatch, digest):
    package = packages.Package("npm", "own", "1", digest, "ours", ("in/",))
    monkeypatch.setitem(packages.PACKAGES, "own", package)


def test_fetch_checks_and_unpacks(tmp_path, monkeypatch):
    archive(tmp_path / "own.tgz", ["in/a", "out/b"])
    content = (tmp_path / "own.tgz").read_bytes()

    def client(package, folder):
        (folder / "own.tgz").write_bytes(content)

    own_package(monkeypatch, "0" * 64)
    with pytest.raises(packages.Unavailable, match="SHA-256"):
        packages.fetch("own", tmp_path / "cache", client)
    own_package(monkeypatch, hashlib.sha256(content).hexdigest())
    folder = packages.fetch("own", tmp_path / "cache", client)
    assert (folder / "in/a").read_bytes() == b"abc"
    assert not (folder / "out").exists()
    # The second time nothing is fetched.
    assert packages.fetch("own", tmp_path / "cache", None) == folder


def test_deb_data(tmp_path):
    def member(name, content):
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n"
        return head.encode() + content + b"\n" * (len(content) % 2)

    file = tmp_path / "a.deb"
    file.write_bytes(
        b"!<arch>\n"
        + member("debian-binary", b"2.0")
        + member("data.tar.xz", b"payload")
    )
    assert packages.deb_data(file) == b"payload"


def test_unprepared_task_says_how(tmp_path):
    with pytest.raises(offline_tfds.TaskUnavailable, match="--prepare"):
        offline_tfds.load_task("emoji", tmp_path)


def test_stored_order_is_kept(tmp_path, monkeypatch, capsys):
    images = np.random.default_rng(0).integers(0, 255, (30, 8, 9, 1), np.uint8)
    made = task.LabelledImages(images, np.arange(30) % 10, np.arange(30) // 3)
    source = offline_tasks.Source(
        "digits", "natural", tuple("0123456789"), lambda _: made, "ours"
    )
    monkeypatch.setitem(offline_tasks.SOURCES, "digits", source)
    assert offline_tfds.prepare(["digits"], tmp_path, lambda line: None) == {}
    assert capsys.readouterr().out == ""
    stored = offline_tfds.load_task("digits", tmp_path)
    train, test = offline_tfds.read(source, tmp_path)
    np.testing.assert_array_equal(stored.train.images[..., :1], train.images)
    np.testing.assert_array_equal(stored.test.labels, test.labels)
    assert not set(stored.train.groups) & set(stored.test.groups)


def test_idx_and_fashion(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "has_fashion_mnist", lambda: False)

    def fetch(name, cache_dir):
        raise packages.Unavailable(f"{name} cannot be had")

    monkeypatch.setattr(packages, "fetch", fetch)
    with pytest.raises(packages.Unavailable, match="dataset-fashion-mnist"):
        builtin.fashion_mnist(tmp_path)
    values = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    head = b"\0\0\x08\x03" + b"".join(
        n.to_bytes(4, "big") for n in values.shape
    )
    (tmp_path / "a.gz").write_bytes(gzip.compress(head + values.tobytes()))
    np.testing.assert_array_equal(builtin.read_idx(tmp_path / "a.gz"), values)


def test_half_of_films_halves_each_category():
    films = np.repeat(np.arange(24), 4)
    labels = np.tile([0, 0, 1, 1], 24) + 2 * (films % 6)
    chosen = builtin.half_of_films(films, labels)
    counts = np.bincount(labels[np.isin(films, chosen)], minlength=12)
    np.testing.assert_array_equal(counts, [4] * 12)


def test_land_tiles_take_clear_classes():
    marble = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    cover = np.zeros((8, 12), np.uint8)  # water, which is no class
    cover[:4, :4], cover[4:, 8:] = 16, 12
    cover[4:6, :4] = 16  # half of its tile: not clear enough
    found = readers.land_tiles(marble, cover, tile=3)
    names = [list(readers.LAND_CLASSES.values())[i] for i in found.labels]
    assert names == ["barren", "cropland"]
    np.testing.assert_array_equal(found.images[0], marble[:3, :3])
    np.testing.assert_array_equal(found.images[1], marble[3:6, 6:9])


def test_sprites():
    assert [builtin.binned(i, 40) for i in (0, 2, 3, 39)] == [0, 0, 1, 15]
    assert [builtin.binned(i, 32) for i in (0, 1, 2, 31)] == [0, 0, 1, 15]
    image = builtin.draw("square", 1.0, 0.0, 0.0, 1.0)
    rows, columns = np.nonzero(image)
    assert abs(columns.mean() + 0.5 - 16) < 0.6
    assert abs(rows.mean() + 0.5 - 48) < 0.6
    upside = builtin.draw("heart", 0.7, np.pi, 0.5, 0.5)
    heart = builtin.draw("heart", 0.7, 0.0, 0.5, 0.5)
    np.testing.assert_array_equal(upside, heart[::-1, ::-1])
    found = builtin.labelled_sprites("position", 50)
    assert found.labels.max() < 16 and len(found.images) == 50


def test_own_labels_are_a_task(tmp_path):
    examples = [data_helpers.video_example(v, [3] * 2) for v in range(8)]
    data_helpers.write_dataset(tmp_path / "data", examples)
    lines = [f"video_{v}.mp4,{'ab'[v % 2]}" for v in range(8)]
    labels = tmp_path / "pets.csv"
    labels.write_text("\n".join(["path,label", *lines]) + "\n")
    name = f"mine:{labels}"
    assert offline_tasks.names([name]) == [name]
    found = offline_tfds.load_task(name, dataset=tmp_path / "data")
    assert found.name == "mine_pets" and found.class_names == ["a", "b"]
    groups = [{*part.groups} for part in (found.train, found.test)]
    assert not groups[0] & groups[1] and len(groups[0] | groups[1]) == 8
    for part in (found.train, found.test):
        assert part.images.shape[1:] == (48, 80, 3)
        # The id of a video is 1000 + its number; red tells the number.
        np.testing.assert_array_equal(part.labels, part.groups % 2)
        red = np.median(part.images[..., 0], axis=(1, 2))
        assert np.abs(red - (20 + 7 * (part.groups - 1000))).max() < 4
    with pytest.raises(ValueError, match="dataset must be given"):
        offline_tfds.load_task(name)
    with pytest.raises(ValueError, match="tasks must be of .*, mine:PATH"):
        offline_tasks.names(["mime:pets.csv"])
