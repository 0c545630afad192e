"""The rules that choose a run's settings from facts."""

import dataclasses

import av
import numpy as np
import pytest

from vivi_keras.runs import plan

HOUR = plan.Archive(100, 3600.0, 480, {})
FACTS = {
    "images_per_second": 100.0,
    "images_per_step": 100,
    "image_size": 64,
    "workers": 2,
}


def write_video(path, seconds, size=(64, 48)):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height = size
        image = np.zeros((size[1], size[0], 3), np.uint8)
        for _ in range(round(10 * seconds)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def test_budgets():
    texts = ("90s", "30m", "1.5h", " 2 H ", "45")
    seconds = [plan.parse_budget(text) for text in texts]
    assert seconds == [90, 1800, 5400, 7200, 2700]


@pytest.mark.parametrize("text", ["", "m", "-5m", "0", "inf", "nan", "3 days"])
def test_bad_budgets(text):
    with pytest.raises(ValueError, match="budget must be a time such as"):
        plan.parse_budget(text)


def test_short_archives_keep_more_frames():
    assert plan.choose_frame_rate(60.0) == 4
    assert plan.choose_frame_rate(12000.0) == 2.5
    assert plan.choose_frame_rate(1e6) == 1


def test_a_budget_is_divided():
    found = plan.make_plan(HOUR, 3600.0, num_choices=3, **FACTS)
    # 3,600 s x 25 frames at 2 x 150 a second; 4 frames a second are kept.
    assert found.seconds["prepare"] == 300
    assert found.frames_per_second == 4
    assert found.seconds["index"] == pytest.approx(3600 * 4 / 300)
    assert found.short_side == 128
    slower = dataclasses.replace(HOUR, video_rate=12.5)
    slower = plan.make_plan(slower, 3600.0, num_choices=3, **FACTS)
    assert slower.seconds["prepare"] == 150
    # A verdict is 15,000 images and 45 s; the run takes 45 s beside its steps.
    left = 3600 - 60 - 300 - 48 - 195 - 45
    assert found.seconds["verdict"] == 195
    frozen = plan.make_plan(HOUR, 3600.0, fine_tune=False, **FACTS)
    assert frozen.seconds["verdict"] == 45
    of_each = int(0.25 * left / 3 - 45)
    assert plan.trial_steps(found, 3, FACTS["images_per_step"]) == of_each
    assert found.seconds["trials"] == 3 * (45 + of_each)
    assert found.steps == left - 3 * (45 + of_each)
    assert sum(found.seconds.values()) == pytest.approx(3600 - 60, abs=2)
    assert plan.has_trials(found)
    # Trials are no longer than the run asks for, also if it is limited.
    for budget, choices in ((3600.0, 2), (1e6, 2), (1e6, 5)):
        found = plan.make_plan(HOUR, budget, num_choices=choices, **FACTS)
        assert 20 <= plan.trial_steps(found, choices, 100) <= found.steps / 5


def test_trials_of_too_few_steps_are_left_out():
    least = 3 * (45 + 20) / 0.25 + 60 + 300 + 48 + 195 + 45
    for more, has_trials in ((2, True), (-2, False)):
        found = plan.make_plan(HOUR, least + more, num_choices=3, **FACTS)
        assert plan.has_trials(found) == has_trials
        assert sum(found.seconds.values()) == pytest.approx(least - 60, abs=4)
    one = plan.make_plan(HOUR, least + 2, num_choices=1, **FACTS)
    assert not plan.has_trials(one) and one.steps > found.steps


def test_without_labels_all_goes_into_training():
    found = plan.make_plan(HOUR, 3600.0, has_labels=False, **FACTS)
    assert found.seconds["trials"] == found.seconds["verdict"] == 0
    assert found.steps == 3600 - 60 - 300 - 48 - 45


def test_a_small_budget_says_what_it_would_take():
    with pytest.raises(
        ValueError, match="at least (\\d+)m for 1.00 h"
    ) as error:
        plan.make_plan(HOUR, 300.0, **FACTS)
    minutes = int(str(error.value).partition("at least ")[2].partition("m")[0])
    assert plan.make_plan(HOUR, 60.0 * minutes, **FACTS).steps >= 50


def test_an_archive_is_measured_by_its_headers(tmp_path):
    write_video(tmp_path / "a.mp4", 2.0)
    write_video(tmp_path / "b.mkv", 3.0, (128, 96))
    write_video(tmp_path / "c.mp4", 1.0)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "notes.txt").write_text("no video")
    found = plan.measure_archive(tmp_path)
    assert (found.num_videos, found.short_side) == (3, 48)
    assert found.seconds == pytest.approx(6.0, abs=0.3)
    assert [*found.broken] == ["broken.mp4"]
    assert found.video_rate == pytest.approx(10)


def test_an_archive_without_videos(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match="videos must have a video .* 1 files"):
        plan.measure_archive(tmp_path)


def test_a_plan_is_kept(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 2.0)
    monkeypatch.setattr(plan, "measure_speed", lambda config: 1000.0)
    from vivi_keras.training import configs

    write_video(tmp_path / "c.mp4", 2.0)
    config = configs.get_config("adapt_frame_demo")

    def make(budget=600.0, **inputs):
        return plan.read_or_make(
            tmp_path / "plan.json", inputs, config, budget, videos=tmp_path
        )

    archive, found = make(levels=["frame"])
    write_video(tmp_path / "b.mp4", 2.0)
    assert make(900.0, levels=["frame"]) == (archive, found)
    with pytest.raises(
        ValueError, match="levels \\['frame'\\] before, \\['sho"
    ):
        make(levels=["shot"])


def test_the_speed_of_a_step_is_measured():
    from vivi_keras.training import configs

    config = configs.get_config("adapt_frame_shot_demo")
    config.model.update(encoder="resnet50v2", width=0.125, weights="none")
    config.data.update(image_size=16, batch_size=2)
    assert 0.1 < plan.measure_speed(config, steps=2) < 1e5
