"""Frames of labelled ranges of a data set, as images to train on."""

import data_helpers
import numpy as np
import pytest

from vivi_keras.data import image_batches, labelled
from vivi_keras.features import own_labels


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six videos of four shots; a shot lasts 3 s and has 3 frames."""
    folder = tmp_path_factory.mktemp("data")
    edges = np.arange(0, 15, 3, dtype=np.float32)
    data_helpers.write_dataset(
        folder,
        [
            data_helpers.video_example(v, [3] * 4)
            | {"shot_start_seconds": edges[:-1], "shot_stop_seconds": edges[1:]}
            for v in range(6)
        ],
    )
    return folder


def write(path, *rows):
    head = "path,start_seconds,stop_seconds,label"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def close(image, video, frame):
    expected = data_helpers.frame_pixels(video, frame)
    return np.abs(image.astype(int) - expected).mean() < 3


def test_every_frame_of_a_range_is_an_image(dataset, tmp_path):
    path = write(
        tmp_path / "l.csv",
        *("video_4.mp4,,,b", "video_1.mp4,2,5,a", "video_0.mp4,9.1,9.2,b"),
    )
    images = own_labels.frames_of(path, dataset)
    # 9.1 to 9.2 s holds no frame: the nearest, at 9 s, stands for it.
    wanted = [(0, 9, 1), *((1, f, 0) for f in (2, 3, 4))]
    wanted += [(4, f, 1) for f in range(12)]
    assert images.class_names == ("a", "b")
    assert images.labels.tolist() == [label for *_, label in wanted]
    assert images.groups.tolist() == [1000 + video for video, *_ in wanted]
    for index, (video, frame, _) in enumerate(wanted):
        assert close(images.read(index), video, frame)
    # A part of the labels keeps label, video and pixels together.
    part = labelled.take_fraction(images, 0.5)
    assert len(part) == 2 + 7
    for index, group in enumerate(part.groups):
        frames = [f for v, f, _ in wanted if 1000 + v == group]
        found = [close(part.read(index), group - 1000, f) for f in frames]
        assert sum(found) == 1
        assert part.labels[index] == (0 if group == 1001 else 1)


def test_batches_are_of_these_frames(dataset, tmp_path):
    path = write(tmp_path / "l.csv", "video_2.mp4,,,x", "video_5.mp4,0,3,y")
    images = own_labels.frames_of(path, dataset)
    (batch,) = image_batches.labelled_batches(
        images, 30, image_size=(48, 80), crop=None, num_steps=1
    )
    for image, label in zip(batch["image"], batch["label"], strict=True):
        # The red channel tells the video.
        video = (np.mean(image[..., 0]) - 20) / 7
        assert abs(video - (5 if label else 2)) < 0.5
    assert set(batch["label"].numpy().tolist()) == {0, 1}


def test_classes_of_another_file(dataset, tmp_path):
    path = write(tmp_path / "l.csv", "video_0.mp4,,,b")
    images = own_labels.frames_of(path, dataset, ("a", "b", "c"))
    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [1] * 12
    with pytest.raises(ValueError, match=r"l.csv must have the .*'b'$"):
        own_labels.frames_of(path, dataset, ("a", "c"))


def test_errors_name_the_row_and_the_file(dataset, tmp_path):
    for row, message in (
        ("video_9.mp4,,,x", "row 2 of .*l.csv must be a video of the data set"),
        ("video_1.mp4,11,90,x", "row 2 of .*l.csv must lie within"),
        ("video_1.mp4,0,1,x", "l.csv: Each class must have at least 2 images"),
    ):
        path = write(tmp_path / "l.csv", row)
        with pytest.raises(ValueError, match=message):
            own_labels.frames_of(path, dataset)
    with pytest.raises(ValueError, match="dataset must be given with a file"):
        own_labels.frames_of(path, "")
