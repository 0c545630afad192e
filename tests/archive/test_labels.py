"""Labels of ranges: reading, joining, fitting, exporting, applying."""

import csv
import json
import re
import subprocess
import sys

import archive_helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

import vivi_keras
from vivi_keras import archive
from vivi_keras.archive import choose, classify, label_pages, search
from vivi_keras.data import range_labels
from vivi_keras.data.range_labels import RangeLabel, read_range_labels
from vivi_keras.export import verify
from vivi_keras.export.classifier import export_classifier

HEAD = "path,start_seconds,stop_seconds,label\n"
WHOLE = [RangeLabel("ü.mp4", 1.5, 2.0, "Katze, groß", 2)]


@pytest.mark.parametrize(
    "content",
    [
        f'{HEAD}ü.mp4,1.5,2,"Katze, groß"\n'.encode(),
        f'{HEAD}ü.mp4,1.5,2,"Katze, groß"\r\n\r\n'.encode("utf-8-sig"),
        f'{HEAD}ü.mp4,1.5,2,"Katze, groß"\n'.encode("utf-16"),
        "Label;note;Stop_Seconds;START_SECONDS;path\r\n"
        '"Katze, groß";x;2,0;1,5;ü.mp4\r\n'.encode(),
        "label\tpath\tstart_seconds\tstop_seconds\n"
        " Katze, groß \tü.mp4\t1.5\t2.0".encode(),
        b'"path"|"label"|"start_seconds"|"stop_seconds"\n'
        + '"ü.mp4"|"Katze, groß"|1.5|2\r'.encode(),
    ],
)
def test_labels_in_many_forms(tmp_path, content):
    (tmp_path / "l.csv").write_bytes(content)
    assert read_range_labels(tmp_path / "l.csv") == (WHOLE, 0)


def test_whole_files_and_rows_without_a_label(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\na.mp4,x\n\nb.mp4,\nc.mp4,y\n")
    found, num_empty = read_range_labels(tmp_path / "l.csv")
    assert found == [
        RangeLabel("a.mp4", 0.0, None, "x", 2),
        RangeLabel("c.mp4", 0.0, None, "y", 5),
    ]
    assert num_empty == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must start with a row of the columns"),
        (b"file,class\na,b\n", r"row 1 .*Got: 'file,class', without path and"),
        (b"path,label,label\n", "name a column once. Got: 'label'"),
        (f"{HEAD}a.mp4,1,2\n".encode(), "row 2 .*Got: 3 values"),
        (f"{HEAD}a.mp4,x,2,y\n".encode(), "start_seconds in row 2 .*Got: 'x'"),
        (f"{HEAD}a.mp4,1,nan,y\n".encode(), "stop_seconds in row 2 .*'nan'"),
        (f"{HEAD}\na.mp4,2,1,y\n".encode(), "row 3 .*Got: 2.0 and 1.0"),
        (f"{HEAD}a.mp4,-1,1,y\n".encode(), "row 2 .*Got: -1.0 and 1.0"),
        (f"{HEAD},0,1,y\n".encode(), "row 2 .*must have a path"),
        (f'{HEAD}"a.mp4,0,1,y\n'.encode(), "row 2 .*must be a line of CSV"),
        (f"{HEAD}a.mp4,0,1,\xe9\n".encode("latin-1"), "other bytes in row 2"),
    ],
)
def test_labels_that_are_wrong(tmp_path, content, message):
    (tmp_path / "wrong.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_range_labels(tmp_path / "wrong.csv")
    assert "wrong.csv" in str(error.value)
    with pytest.raises(ValueError, match="no.csv, which is not a file"):
        read_range_labels(tmp_path / "no.csv")


def write(folder, *rows):
    path = folder / "labels.csv"
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows), "utf-8")
    return path


def all_rows(films=archive_helpers.FILMS):
    """A row for every shot, by its colour."""
    return [
        f"{name},{1.5 * place},{1.5 * place + 1.5},{colour}"
        for name in films
        for place, colour in enumerate(archive_helpers.FILMS[name])
    ]


def test_join(made, tmp_path):
    index = archive.open_index(made / "index")
    path = write(
        tmp_path,
        # Two shots, of which the second is not whole; then within a shot,
        # between two frames; a whole file; an absolute path; NFD accents.
        "deep/b.mp4,0,2.2,x",
        "d.mp4,3.3,3.31,x",
        "a.mp4,,,y",
        f"{made / 'films' / 'd.mp4'},0,1.5,y",
        "c u\u0308.mp4,0,1,x",
    )
    found = range_labels.join(index.footage, path)
    assert (found.class_names, found.num_rows) == (("x", "y"), 5)
    frames, got = index.frames, set()
    for shot, rows, label in zip(
        found.shot_rows, found.frame_rows, found.labels, strict=True
    ):
        assert (frames["shot_row"][rows] == shot).all() and len(rows)
        for row in rows:
            told = frames.iloc[row]
            got.add((told["video"], told["seconds"], found.class_names[label]))
    wanted = set()
    for told in frames.itertuples():
        seconds, video = told.seconds, told.video
        if video == "a.mp4" or (video == "d.mp4" and seconds < 1.5):
            wanted.add((video, seconds, "y"))
        if (video == "deep/b.mp4" and seconds < 2.2) or (
            video == "c ü.mp4" and seconds < 1.0
        ):
            wanted.add((video, seconds, "x"))
    last = frames[(frames["video"] == "d.mp4") & (frames["shot"] == 2)]
    near = last["seconds"].iloc[np.argmin(abs(last["seconds"] - 3.305))]
    assert got == wanted | {("d.mp4", near, "x")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.mp4,0,1,x", "e.mp4,0,1,y"], "path in row 3 .*labels.csv.*'e.mp4'"),
        (["deep/b.mp3,0,1,x"], "Did you mean 'deep/b.mp4'"),
        (["a.mp4,4.5,5,x"], "row 2 .*labels.csv.* 4.50 s long"),
        (["a.mp4,1,6,x"], "row 2 .* 4.50 s long. Got: 1.0 to 6.0"),
        (
            ["a.mp4,0,1,x", "a.mp4,1,2,y", "a.mp4,1.9,3,x"],
            "rows 3 and 4 .*labels.csv.*'y' and 'x' at 1.90 s of a.mp4",
        ),
        (["a.mp4,0,4,x", "a.mp4,1,2,x", "a.mp4,3,4,y"], "rows 2 and 4"),
        (["a.mp4,0,1,"], "Got: none, and 1 without"),
    ],
)
def test_rows_that_do_not_fit_the_index(made, tmp_path, rows, message):
    index = archive.open_index(made / "index")
    with pytest.raises(ValueError, match=message):
        range_labels.join(index.footage, write(tmp_path, *rows))


def test_a_range_whose_frames_were_dropped(tmp_path):
    vectors = np.ones((2, 4), np.float16)
    index = archive_helpers.write_index(tmp_path / "i", vectors, [1, 1])
    index.shots.loc[1, "start_seconds"] = 15.0
    index.shots.loc[1, "stop_seconds"] = 30.0
    with pytest.raises(ValueError, match="row 2 .*all frames were dropped"):
        range_labels.join(index.footage, write(tmp_path, "0.mp4,11,14,x"))


def made_clusters(folder, classes=3, videos=8, noise=1.5, width=20):
    """An index of shots around a centre a class, and their classes."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(classes, width))
    kinds = generator.integers(classes, size=3 * videos)
    counts = generator.integers(1, 4, size=3 * videos)
    vectors = centres[np.repeat(kinds, counts)]
    vectors = vectors + noise * generator.normal(size=vectors.shape)
    index = archive_helpers.write_index(folder, vectors.astype("f2"), counts)
    return index, kinds


def test_the_fit_equals_scikit_learn_on_the_frames(tmp_path):
    for classes in (2, 3):
        index, kinds = made_clusters(tmp_path / str(classes), classes)
        path = write(
            tmp_path,
            *(
                f"{shot.video},{shot.start_seconds},{shot.stop_seconds},k{kind}"
                for shot, kind in zip(
                    index.shots.itertuples(), kinds, strict=True
                )
            ),
        )
        labelled = range_labels.join(index.footage, path)
        fitted = classify.fit(index, labelled)
        features = index.vectors.astype(np.float64)
        mean, scale = features.mean(axis=0), features.std(axis=0)
        counts = index.shots["num_frames"].to_numpy()
        weights = 1 / np.repeat(counts, counts)
        model = LogisticRegression(C=fitted.strength, max_iter=5000).fit(
            (features - mean) / scale,
            np.repeat(kinds, counts),
            sample_weight=weights / weights.mean(),
        )
        wanted = model.predict_proba((features - mean) / scale)
        logits = fitted.head.logits(features)
        got = keras.ops.softmax(logits, axis=1)
        np.testing.assert_allclose(got, wanted, atol=2e-3)
        # Held-out accuracy is honest: of mere noise nothing is learnt.
        assert fitted.accuracy == np.trace(fitted.confusion) / len(kinds)
        assert (
            fitted.confusion.sum(axis=1).tolist() == np.bincount(kinds).tolist()
        )
        assert fitted.accuracy > 0.7


def test_no_video_is_on_both_sides(tmp_path, monkeypatch):
    """Labels that are the video's own: on another video they tell nothing."""
    generator = np.random.default_rng(1)
    videos = generator.normal(size=(12, 16))
    vectors = np.repeat(videos, 6, axis=0)
    vectors = vectors + 0.01 * generator.normal(size=vectors.shape)
    index = archive_helpers.write_index(
        tmp_path / "i", vectors.astype("f2"), [2] * 36
    )
    path = write(tmp_path, *(f"{v}.mp4,,,k{v % 2}" for v in range(12)))
    fit, seen = classify._Data.fit, []

    def watched(self, shots, strength):
        seen.append(set(self.groups[shots].tolist()))
        return fit(self, shots, strength)

    monkeypatch.setattr(classify._Data, "fit", watched)
    fitted = classify.fit(index, range_labels.join(index.footage, path))
    assert fitted.accuracy < 0.8
    # Every fit but the last is without some whole videos.
    assert len(seen[-1]) == 12 and len(seen) > 30
    assert sum(len(videos) < 12 for videos in seen) > 30


def test_too_few_labels(made, tmp_path):
    index = archive.open_index(made / "index")

    def fit(*rows):
        labelled = range_labels.join(index.footage, write(tmp_path, *rows))
        fitted = classify.fit(index, labelled)
        return fitted, "\n".join(classify.report(fitted, labelled))

    with pytest.raises(ValueError, match="at least two classes. Got: only x"):
        fit("a.mp4,0,1,x")
    fitted, told = fit("a.mp4,0,1.5,x", "a.mp4,1.5,3,y")
    assert fitted.accuracy is None
    assert "accuracy cannot be measured" in told
    assert "too few labels: x, y" in told
    fitted, told = fit(
        *("a.mp4,0,1.5,red", "deep/b.mp4,1.5,3,red", "c ü.mp4,1.5,3,red"),
        *("a.mp4,1.5,3,green", "deep/b.mp4,0,1.5,green", "d.mp4,3,4.5,odd"),
    )
    assert "odd is labelled in one video only" in told
    # One shot a class, each of another video: nothing can be held out.
    fitted, told = fit("a.mp4,0,1.5,x", "d.mp4,0,1.5,y", "c ü.mp4,0,1.5,z")
    assert fitted.accuracy is None
    assert "accuracy cannot be measured" in told


def command(folder, *flags):
    return subprocess.run(
        [sys.executable, "-m", "vivi_keras.training.label", *flags],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def classifier(made, tmp_path_factory):
    """What vivi-label --fit printed, and the folder it wrote."""
    folder = tmp_path_factory.mktemp("classifier")
    path = write(folder, *all_rows(), "a.mp4,,,")
    done = command(
        made,
        "--fit",
        "--index=index",
        f"--labels={path}",
        f"--output={folder / 'module'}",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "module"


def test_fit_exports_a_module(made, classifier):
    told, module = classifier
    assert "12 labels, 12 labelled shots of 4 videos" in told
    assert "1 rows have no label yet" in told
    assert "on videos held out: 12 of 12 shots right, 100.0 %" in told
    rows = [line.split() for line in told.splitlines()]
    assert ["blue", "4", "0", "0"] in rows and ["red", "0", "0", "4"] in rows
    results = verify.verify(module)
    assert not [row for row in results if row[1] == "MISS"], results
    metadata = json.loads((module / "assets.extra/vivi.json").read_text())
    assert metadata["class_names"] == ["blue", "green", "red"]
    assert metadata["labels"]["accuracy"] == 1.0
    # Features as before, and classify tells colours, also loaded by others.
    images = np.random.default_rng(0).uniform(size=(5, 40, 56, 3))
    images = images.astype(np.float32)
    loaded = tf.saved_model.load(str(module))
    before = tf.saved_model.load(str(made / "module"))
    np.testing.assert_allclose(loaded(images), before(images), atol=1e-6)
    layer = vivi_keras.load(str(module), trainable=True)
    np.testing.assert_allclose(layer(images), before(images), atol=1e-6)
    plain = np.stack(
        [
            np.full((32, 32, 3), colour, np.float32) / 255
            for _, colour in sorted(archive_helpers.COLOURS.items())
        ]
    )
    got = loaded.signatures["classify"](images=tf.constant(plain))
    assert got["probabilities"].numpy().argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(
        got["probabilities"].numpy().sum(axis=1), 1.0, atol=1e-5
    )


def test_apply(made, classifier, tmp_path):
    done = command(
        made,
        "--apply",
        "--index=index",
        f"--module={classifier[1]}",
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    assert "blue: 4 shots" in done.stdout
    with open(tmp_path / "out" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        place = round(float(row["start_seconds"]) / 1.5)
        assert row["label"] == archive_helpers.FILMS[row["path"]][place]
        assert 1 / 3 < float(row["confidence"]) <= 1
        assert 0 <= float(row["margin"]) <= 1
    # The predictions are labels that can be read again.
    index = archive.open_index(made / "index")
    again = range_labels.join(
        index.footage, tmp_path / "out" / "predictions.csv"
    )
    assert again.num_rows == 12
    page = (tmp_path / "out" / "timeline.html").read_text("utf-8")
    assert page.count('class="timeline"') == 4
    bars = re.findall(
        r'<a title="([^"]+)" href="([^"]+)" style="left: ([\d.]+)%'
        r"; width: ([\d.]+)%",
        page,
    )
    assert len(bars) == 12
    title, link, left, width = bars[0]
    assert title.startswith("0:00.0-0:01.5 red ") and left == "0.00"
    assert width == "33.33" and link.endswith("films/a.mp4#t=0.00,1.50")
    # The least sure shot comes first.
    least = min(rows, key=lambda row: float(row["margin"]))
    first = page.split("<figure>")[1]
    assert least["path"] in first and least["label"] in first


def test_a_classifier_of_another_encoder_is_refused(made, tmp_path):
    index = archive.open_index(made / "index")
    film = vivi_keras.models.registry.find("vivi-r14w025-film/1")
    export_classifier(
        film, tmp_path / "c", np.zeros((512, 2)), np.zeros(2), ["x", "y"]
    )
    own = index.manifest["module"]["sha256"]
    with pytest.raises(ValueError, match=f"hash {own}, and .*c with the enc"):
        classify.read_head(index, tmp_path / "c")
    with pytest.raises(ValueError, match="linear head and class names"):
        classify.read_head(index, made / "module")
    with pytest.raises(ValueError, match="which is no SavedModel"):
        classify.read_head(index, made / "films")
    with pytest.raises(ValueError, match=r"Got: \(512, 3\) and \(2,\)"):
        export_classifier(
            film, tmp_path / "d", np.zeros((512, 3)), np.zeros(2), ["x", "y"]
        )
    with pytest.raises(FileExistsError, match="other files"):
        export_classifier(
            film, made / "films", np.zeros((512, 1)), np.zeros(1), ["x"]
        )


def test_an_empty_index(tmp_path):
    """No page, table or file fails without a shot."""
    index = archive_helpers.write_index(
        tmp_path / "index", np.zeros((0, 8), np.float16), []
    )
    assert choose.suggest(index, 5) == [] and choose.duplicates(index) == []
    sheet = label_pages.write_suggestions(tmp_path / "l.csv", index, [])
    assert "No shot is left" in sheet.read_text("utf-8")
    assert (tmp_path / "l.csv").read_text("utf-8") == HEAD
    page = tmp_path / "hits.html"
    search.write(page, index, index.search(np.ones(8)), "q", None)
    assert "No shot was found: the index is empty" in page.read_text("utf-8")
    assert search.table([]) == ["no shot was found: the index is empty"]
    head = classify.Head(np.ones((8, 2)), np.zeros(2), ("x", "y"))
    counts = label_pages.write_predictions(tmp_path / "out", index, head)
    assert counts == {"x": 0, "y": 0}
    rows = (tmp_path / "out" / "predictions.csv").read_text("utf-8")
    assert rows == HEAD.strip() + ",confidence,margin\n"
    with pytest.raises(ValueError, match="path in row 2 .*Got: 'a.mp4'$"):
        range_labels.join(index.footage, write(tmp_path, "a.mp4,0,1,x"))


def test_bad_flags(made):
    for flags, message in (
        (["--fit", "--apply"], "One of --suggest, --fit and --apply"),
        (["--fit", "--index=index", "--output=o"], "--labels must be given"),
        (["--apply", "--index=index", "--output=o"], "--module must be given"),
        (["--suggest=0", "--index=index"], "flag --suggest=0"),
        (["--apply", "--finetune"], "--finetune must be given with --fit only"),
    ):
        done = command(made, *flags)
        assert done.returncode == 1 and message in done.stderr, done.stderr


def test_suggestions_are_never_written_over(made, tmp_path):
    index = archive.open_index(made / "index")
    path = tmp_path / "labels.csv"
    first = index.shots.index[index.shots["video"] == "deep/b.mp4"][0]
    sheet = label_pages.write_suggestions(path, index, [first, 0])
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == HEAD.strip()
    assert lines[1:] == ["deep/b.mp4,0.000,1.500,", "a.mp4,0.000,1.500,"]
    page = sheet.read_text("utf-8")
    assert page.count("<figure>") == page.count("data:image/jpeg") == 2
    assert "row 2" in page and "deep/b.mp4#t=0.00,1.50" in page
    with pytest.raises(ValueError, match="so that no label is lost"):
        label_pages.write_suggestions(path, index, [1])


def test_a_table_of_long_names_has_numbered_columns():
    assert classify._confusion(("cat", "dog"), np.array([[11, 3], [8, 2]])) == [
        "true, pred.  cat  dog",
        "cat           11    3",
        "dog            8    2",
    ]
    names = ("freedoom1-e2m4", "freedoom2-map03")
    assert classify._confusion(names, np.array([[18, 2], [3, 10]])) == [
        "true, pred.          1    2",
        "1 freedoom1-e2m4    18    2",
        "2 freedoom2-map03    3   10",
    ]
