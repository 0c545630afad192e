"""vivi-embed on Beam: the index of one process, also after a failure."""

import shutil
import sys

import archive_helpers
import numpy as np
import pytest
from archive_helpers import check_same, embed

from vivi_keras import archive
from vivi_keras.archive import beam, embedding

OPTIONS = "runner=DirectRunner"


@pytest.fixture
def small_ranges(monkeypatch):
    """Skips without Beam; one record in a range."""
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    monkeypatch.setattr(beam, "RECORDS_PER_RANGE", 1)


def fresh(made, folder):
    for name in ("module", "data", "films"):
        shutil.copytree(made / name, folder / name)
    return folder


def test_the_same_rows_in_the_same_order(small_ranges, made, tmp_path):
    folder = fresh(made, tmp_path)
    done = embed(folder, image_size=32, beam_options=OPTIONS)
    one, other = (
        archive.open_index(place / "index") for place in (made, folder)
    )
    assert done["frames_added"] == done["frames"] == one.num_frames
    assert len(list((folder / "index/parts").glob("*.frames.parquet"))) == 4
    assert not list((folder / "index/parts").glob("*.json"))
    check_same(other, one)
    for name in ("video", "shot", "seconds"):
        assert [*one.frames[name]] == [*other.frames[name]]
    for name, values in one.records().items():
        np.testing.assert_array_equal(values, other.records()[name])
    assert embed(folder, beam_options=OPTIONS)["frames_added"] == 0


def test_only_new_videos_are_embedded(small_ranges, made, tmp_path):
    folder = fresh(made, tmp_path)
    names = [*archive_helpers.FILMS]
    gone = folder / "films" / names[0]
    gone.rename(tmp_path / "kept")
    shutil.rmtree(folder / "data")
    archive_helpers.prepared(folder / "films", folder / "data")
    embed(folder, image_size=32)
    (tmp_path / "kept").rename(gone)
    archive_helpers.prepared(folder / "films", folder / "data")
    done = embed(folder, beam_options=OPTIONS)
    assert done["frames_added"] == 9 and done["videos"] == 4
    check_same(
        archive.open_index(folder / "index"), archive.open_index(made / "index")
    )


@pytest.mark.parametrize("options", [OPTIONS, None])
def test_a_failed_run_goes_on(
    options, small_ranges, made, tmp_path, monkeypatch
):
    folder = fresh(made, tmp_path)
    ranges, embed_range = [], embedding._embed_range

    def fails(item, **arguments):
        ranges.append(item)
        if len(ranges) == 3:
            raise OSError("no space left")
        return embed_range(item, **arguments)

    monkeypatch.setattr(embedding, "_embed_range", fails)
    with pytest.raises(Exception, match="no space left"):
        embed(folder, image_size=32, beam_options=OPTIONS)
    monkeypatch.undo()
    monkeypatch.setattr(beam, "RECORDS_PER_RANGE", 1)
    kept = archive.open_index(folder / "index").num_frames
    whole = archive.open_index(made / "index")
    assert 0 < kept < whole.num_frames
    done = embed(folder, beam_options=options)
    assert done["frames_added"] == whole.num_frames - kept
    check_same(archive.open_index(folder / "index"), whole)


def test_parts_that_a_killed_run_left(
    small_ranges, made, tmp_path, monkeypatch
):
    folder = fresh(made, tmp_path)
    with monkeypatch.context() as patch:
        # As if it was killed before the parts were entered.
        patch.setattr(beam, "adopt", lambda *arguments: 0)
        patch.setattr(embedding, "_embed", lambda *arguments: 1 / 0)
        patch.setattr("vivi_keras.archive.store.Store.clean", lambda self: None)
        with pytest.raises(ZeroDivisionError):
            embed(folder, image_size=32, beam_options=OPTIONS)
    assert len(list((folder / "index/parts").glob("*.json"))) == 4
    assert archive.open_index(folder / "index").num_frames == 0
    done = embed(folder, beam_options=OPTIONS)
    whole = archive.open_index(made / "index")
    assert done["frames_added"] == whole.num_frames
    check_same(archive.open_index(folder / "index"), whole)


@pytest.mark.slow  # two workers that start TensorFlow
def test_workers_in_other_processes(made, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    folder = fresh(made, tmp_path)
    options = f"{OPTIONS},direct_num_workers=2"
    options += ",direct_running_mode=multi_processing"
    embed(folder, image_size=32, beam_options=options)
    check_same(
        archive.open_index(folder / "index"), archive.open_index(made / "index")
    )


def test_what_beam_cannot_do_is_told(made, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="dataset must be given with beam"):
        archive.embed(
            made / "module", tmp_path, images=made, beam_options=OPTIONS
        )
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    folder = fresh(made, tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'vivi-keras\[beam\]'"):
        embed(folder, image_size=32, beam_options=OPTIONS)
