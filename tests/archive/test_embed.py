"""vivi-embed: rows, added and moved videos, killed runs, what is refused."""

import json
import shutil
import signal
import subprocess
import sys

import archive_helpers
import data_helpers
import evaluation_modules
import numpy as np
import pytest
from archive_helpers import check_same, embed
from film_helpers import read

from vivi_keras import archive
from vivi_keras.archive import embedding, sources, store
from vivi_keras.data import labelled
from vivi_keras.data import records as records_lib
from vivi_keras.features import encoder as encoder_lib
from vivi_keras.features.frames import shot_frames


def test_rows_and_vectors_equal_a_slow_reference(made):
    encoder = encoder_lib.load_encoder(made / "module")
    index = archive.open_index(made / "index")
    assert index.vectors.dtype == index.shot_vectors.dtype == np.float16
    frames, place = index.frames, 0
    shots = shot_frames(made / "data", frames_per_shot=100)
    for shot_row, shot in enumerate(shots):
        told = index.shots.iloc[shot_row]
        assert (told["video"], told["video_id"]) == (shot.video, shot.video_id)
        assert told["shot"] == shot.index
        assert told["start_seconds"] == shot.start_seconds
        assert told["stop_seconds"] == shot.stop_seconds
        assert told["num_frames"] == len(shot.frames) > 1
        images = np.stack(shot.frames)
        wanted = encoder.features(encoder_lib.resize_images(images, (32, 32)))
        rows = slice(place, place + len(wanted))
        np.testing.assert_allclose(
            index.vectors[rows], wanted, rtol=1e-3, atol=1e-4
        )
        np.testing.assert_allclose(
            index.shot_vectors[shot_row],
            wanted.mean(axis=0),
            rtol=1e-3,
            atol=1e-4,
        )
        assert (frames["shot_row"][rows] == shot_row).all()
        assert (frames["video"][rows] == shot.video).all()
        assert (frames["seconds"][rows] == shot.times_seconds).all()
        place = rows.stop
    shot_row += 1
    assert (place, shot_row) == (index.num_frames, index.num_shots)
    assert index.num_shots == sum(map(len, archive_helpers.FILMS.values()))


def test_only_new_videos_are_embedded(made, tmp_path, monkeypatch):
    folder = tmp_path
    shutil.copytree(made / "module", folder / "module")
    names = [*archive_helpers.FILMS]
    archive_helpers.made_films(folder / "films", names[1:])
    archive_helpers.prepared(folder / "films", folder / "data")
    embed(folder, image_size=32)
    parts = sorted((folder / "index" / "parts").iterdir())
    before = [path.read_bytes() for path in parts]
    # It comes first in the data set: every record has another number now.
    archive_helpers.made_films(folder / "films", names[:1])
    archive_helpers.prepared(folder / "films", folder / "data")
    numbers, read_record = [], records_lib.Records.read
    monkeypatch.setattr(
        records_lib.Records,
        "read",
        lambda self, number: (
            numbers.append(number) or read_record(self, number)
        ),
    )
    done = embed(folder)
    monkeypatch.undo()
    assert done["frames_added"] == 9 and done["videos"] == 4
    # Its own record, and the next one, to see that the video ends.
    assert numbers == [0, 1]
    assert [path.read_bytes() for path in parts] == before
    whole, index = (
        archive.open_index(made / "index"),
        archive.open_index(folder / "index"),
    )
    check_same(index, whole)
    assert embed(folder)["frames_added"] == 0
    # Where pictures of a hit are found.
    records = index.records()
    for number, record in enumerate(read(folder / "data")):
        assert records["number"][number] == number
        assert records["video_id"][number] == record["video_id"]
        assert records["video"][number] == record["video"].decode()


def test_videos_that_left_or_moved(copied):
    films = copied / "films"
    (films / "a.mp4").unlink()
    (films / "deep" / "b.mp4").rename(films / "moved.mp4")
    archive_helpers.prepared(films, copied / "data")
    done = embed(copied)
    assert (done["frames_added"], done["frames_dropped"]) == (0, 9)
    index = archive.open_index(copied / "index")
    assert set(index.shots["video"]) == {"moved.mp4", "c ü.mp4", "d.mp4"}
    assert set(index.frames["video"]) == {"moved.mp4", "c ü.mp4", "d.mp4"}
    assert index.vectors.shape == (index.num_frames, 12)


class Killed(BaseException):
    """Ends a run where it is."""


def save_killed(left, end):
    """A `Store.save` that ends the run at the time `left`."""
    save, left = store.Store.save, [left]

    def killed(self):
        left[0] -= 1
        if not left[0]:
            end()
        save(self)

    return killed


def check_goes_on(folder, made, save):
    """That a run, ended at the time `save`, goes on to the whole index."""
    started = (folder / "index" / "index.json").exists()
    assert started == (save > 1)
    if started:
        half = archive.open_index(folder / "index")
        assert not half.is_complete()
        assert len(half._store.parts) == max(0, save - 2)
    embed(folder, image_size=32)
    index = archive.open_index(folder / "index")
    assert index.is_complete()
    check_same(index, archive.open_index(made / "index"))
    names = {path.name for path in (folder / "index" / "parts").iterdir()}
    assert len(names) == 2 * len(index._store.parts)


@pytest.mark.parametrize("save", range(1, 7))
def test_a_stopped_run_goes_on(made, tmp_path, save, monkeypatch):
    def end():
        raise Killed

    monkeypatch.setattr(embedding, "PART_FRAMES", 1)
    monkeypatch.setattr(store.Store, "save", save_killed(save, end))
    for name in ("module", "data"):
        shutil.copytree(made / name, tmp_path / name)
    with pytest.raises(Killed):
        embed(tmp_path, image_size=32)
    monkeypatch.undo()
    check_goes_on(tmp_path, made, save)


def test_a_killed_run_goes_on(made, tmp_path):
    for name in ("module", "data"):
        shutil.copytree(made / name, tmp_path / name)
    script = """
import os, signal
from vivi_keras import archive
from vivi_keras.archive import embedding, sources, store
embedding.PART_FRAMES = 1
write = store.Store.write_part
def killed(self, *tables):
    if len(self.parts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, *tables)
store.Store.write_part = killed
archive.embed("module", "index", dataset="data", image_size=32)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    check_goes_on(tmp_path, made, 4)


def test_a_video_cut_by_the_end_of_a_part(made, tmp_path, monkeypatch):
    """Records of one shot: a part ends within a video, then the run stops."""
    for name in ("module", "films"):
        shutil.copytree(made / name, tmp_path / name)
    archive_helpers.prepared(
        tmp_path / "films", tmp_path / "data", shots_per_record=1
    )
    embed(tmp_path, image_size=32)
    (tmp_path / "index").rename(tmp_path / "whole")
    whole = archive.open_index(tmp_path / "whole")
    for parts in range(1, 6):
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        monkeypatch.setattr(embedding, "PART_FRAMES", 1)
        left, write = [parts], store.Store.write_part

        def stop(self, *tables, left=left, write=write):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return write(self, *tables)

        monkeypatch.setattr(store.Store, "write_part", stop)
        with pytest.raises(KeyboardInterrupt):
            embed(tmp_path, image_size=32)
        monkeypatch.undo()
        embed(tmp_path)
        check_same(archive.open_index(tmp_path / "index"), whole)


def test_a_data_set_without_vivi_json(made, tmp_path):
    """As `tfds build` writes it: records of the videos in any order."""
    shutil.copytree(made / "module", tmp_path / "module")
    examples = [data_helpers.video_example(n, (2, 3)) for n in range(3)]
    later = {**examples[1], "first_shot": 2}
    data_helpers.write_dataset(tmp_path / "data", [examples[1], examples[0]])
    embed(tmp_path, image_size=32)
    shutil.rmtree(tmp_path / "data")
    data_helpers.write_dataset(
        tmp_path / "data", [examples[2], later, examples[0], examples[1]]
    )
    assert embed(tmp_path)["frames_added"] == 10
    index = archive.open_index(tmp_path / "index")
    assert (index.num_shots, index.num_frames) == (8, 20)
    shots = index.shots[["video", "shot"]].value_counts()
    assert (shots == 1).all() and ("video_1.mp4", 3) in shots.index


def test_images_of_a_folder(made, tmp_path):
    images = tmp_path / "images"
    (images / "ü").mkdir(parents=True)
    pixels = [data_helpers.frame_pixels(n, 3 * n) for n in range(3)]
    for place, name in enumerate(("0.jpg", "ü/1.jpg", "2.JPG")):
        (images / name).write_bytes(data_helpers.encode_jpeg(pixels[place]))
    shutil.copy(images / "0.jpg", images / "copy.jpg")
    (images / "bad.png").write_bytes(b"no image")
    (images / "notes.txt").write_text("no image by its name")
    shutil.copytree(made / "module", tmp_path / "module")
    done = embed(tmp_path, dataset=None, images=images, image_size=32)
    assert done["frames"] == 3 and [*done["skipped"]] == ["bad.png"]
    index = archive.open_index(tmp_path / "index")
    encoder = encoder_lib.load_encoder(tmp_path / "module")
    by_name = dict(zip(index.shots["video"], index.vectors, strict=True))
    assert set(by_name) == {"0.jpg", "ü/1.jpg", "2.JPG"}
    image = labelled.decode_rgb((images / "ü/1.jpg").read_bytes())
    wanted = encoder.features(encoder_lib.resize_images(image[None], (32, 32)))[
        0
    ]
    np.testing.assert_allclose(by_name["ü/1.jpg"], wanted, rtol=1e-3, atol=1e-4)
    (images / "2.JPG").unlink()
    (images / "new.jpg").write_bytes(
        data_helpers.encode_jpeg(data_helpers.frame_pixels(9, 9))
    )
    done = embed(tmp_path, dataset=None, images=images)
    assert (done["frames_added"], done["frames_dropped"]) == (1, 1)


def fails(message, folder, **options):
    with pytest.raises(ValueError, match=message):
        embed(folder, **options)


def test_another_module_is_refused(copied):
    told = json.loads((copied / "index" / "index.json").read_text())
    evaluation_modules.save(
        copied / "module", evaluation_modules.TinyEncoder(seed=1)
    )
    digest = encoder_lib.module_digest(copied / "module")
    fails(f"{told['module']['sha256']}.*{digest}", copied)


def test_another_data_set_is_refused(copied, tmp_path):
    data_helpers.write_dataset(
        tmp_path / "other", [data_helpers.video_example(0, (2,))]
    )
    own, other = (
        records_lib.fingerprint(folder)
        for folder in (copied / "data", tmp_path / "other")
    )
    fails(f"{own}.*{other}.*other settings", copied, dataset=tmp_path / "other")
    archive_helpers.film(tmp_path / "films" / "z.mp4", ("red", "blue"), 9)
    archive_helpers.prepared(tmp_path / "films", tmp_path / "same")
    other = records_lib.fingerprint(tmp_path / "same")
    fails(f"{own}.*{other}.*no video", copied, dataset=tmp_path / "same")


def test_bad_arguments(copied, tmp_path):
    fails("one of dataset and images", copied, images=copied)
    fails("one of dataset and images", copied, dataset=None)
    fails("image_size must be that of the index", copied, image_size=48)
    fails("image_size must be", copied, image_size=1)
    fails("batch_size must be", copied, batch_size=0)
    fails("is not a folder", copied, dataset=None, images=tmp_path / "no")
    (tmp_path / "empty").mkdir()
    fails(
        "with no file that ends",
        copied,
        dataset=None,
        images=tmp_path / "empty",
    )
    fails("no dataset_info.json", copied, dataset=tmp_path / "empty")
    for output, message in (
        (copied / "films", "holds other files"),
        (copied / "films" / "a.mp4", "a file"),
    ):
        with pytest.raises(ValueError, match=message):
            archive.embed(copied / "module", output, dataset=copied / "data")


def test_a_damaged_frame_is_named(made, tmp_path):
    shutil.copytree(made / "module", tmp_path / "module")
    example = data_helpers.video_example(0, (2, 2))
    example["frames"] = [
        data_helpers.encode_jpeg(image) for image in example["frames"]
    ]
    example["frames"][2] = b"\xff\xd8\xff no frame"
    data_helpers.write_dataset(tmp_path / "data", [example])
    fails("frame at 2.00 s of video_0.mp4", tmp_path, image_size=32)


def test_damaged_indexes(copied):
    path = next((copied / "index" / "parts").glob("*.frames.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=f"{path.name} is missing or damaged"):
        _ = archive.open_index(copied / "index").vectors
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing or damaged"):
        _ = archive.open_index(copied / "index").vectors
    manifest = copied / "index" / "index.json"
    manifest.write_text("{}")
    with pytest.raises(ValueError, match="must be of format 1"):
        archive.open_index(copied / "index")
    manifest.write_text("{")
    with pytest.raises(ValueError, match="index.json is damaged"):
        archive.open_index(copied / "index")
    with pytest.raises(ValueError, match="written by vivi-embed"):
        archive.open_index(copied / "films")


def test_the_command(made, tmp_path):
    def run(*flags, before=""):
        script = f"{before}\nfrom vivi_keras.training.embed import run; run()"
        return subprocess.run(
            [sys.executable, "-c", script, *flags],
            cwd=made,
            capture_output=True,
            text=True,
        )

    output = f"--output={tmp_path / 'index'}"
    done = run(
        "--module=module",
        "--dataset=data",
        output,
        "--image_size=32",
        "--approximate",
    )
    assert done.returncode == 0, done.stderr
    assert "36 frames added, 0 dropped; 4 videos, 12 shots" in done.stdout
    # Its lists hold all frames, but their directions are rounded.
    assert float(done.stdout.split("recall at 10 ")[1]) > 0.98
    assert "clustering" not in done.stderr
    done = run(
        "--module=module",
        "--dataset=data",
        output,
        before="import sys; sys.modules['usearch'] = None",
    )
    assert done.returncode == 1
    assert "pip install 'vivi-keras[archive]'" in done.stderr.splitlines()[-1]
    done = run("--dataset=data", output)
    assert done.returncode == 1 and "--module must be given" in done.stderr


def test_memory_does_not_grow_with_the_archive(made):
    """Only so many shots are read ahead as fit into a few batches."""
    encoder = encoder_lib.load_encoder(made / "module")
    jpeg = data_helpers.encode_jpeg(data_helpers.frame_pixels(1, 1))
    read = [0]

    def shots():
        for number in range(2000):
            read[0] = number
            yield sources.Shot(
                *("v.mp4", 1, number, number, 0.0, 1.0),
                *([0, 1], [0.0, 0.5], [jpeg, jpeg]),
            )

    ahead = []
    for shot, found in embedding.features(shots(), encoder, (32, 32), 8):
        assert found.shape == (2, 12)
        ahead.append(read[0] - shot.index)
    assert len(ahead) == 2000
    assert max(ahead) < 200
