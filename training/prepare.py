"""vivi-prepare: a folder of videos -> a data set for pretraining."""

import sys

from absl import app, flags

from vivi_keras import video

_VIDEOS = flags.DEFINE_string("videos", None, "Folder of video files.")
_DATASET = flags.DEFINE_string("dataset", None, "Folder of the data set.")
_FRAMES_PER_SECOND = flags.DEFINE_float(
    "frames_per_second", 1.0, "Frames kept of each second of video."
)
_SHORT_SIDE = flags.DEFINE_integer(
    "short_side", 256, "Short side of stored frames, in pixels."
)
_DETECTOR = flags.DEFINE_enum(
    "detector",
    "adaptive",
    ["adaptive", "content", "histogram"],
    "How shots are found.",
)
_MAX_SHOT_SECONDS = flags.DEFINE_float(
    "max_shot_seconds", None, "Split shots that are longer."
)
_MIN_SHOT_SECONDS = flags.DEFINE_float(
    "min_shot_seconds", 0.5, "Shots that are shorter are merged or dropped."
)
_SHORT_SHOTS = flags.DEFINE_enum(
    "short_shots", "merge", ["merge", "drop"], "What becomes of short shots."
)
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that decode.")
_STRICT = flags.DEFINE_bool(
    "strict", False, "Exit with status 1 where any video was set aside."
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        report = video.prepare(
            _VIDEOS.value,
            _DATASET.value,
            frames_per_second=_FRAMES_PER_SECOND.value,
            short_side=_SHORT_SIDE.value,
            detector=_DETECTOR.value,
            max_shot_seconds=_MAX_SHOT_SECONDS.value,
            min_shot_seconds=_MIN_SHOT_SECONDS.value,
            short_shots=_SHORT_SHOTS.value,
            workers=_WORKERS.value,
            strict=_STRICT.value,
            show_progress=True,
        )
    except ValueError as error:
        sys.exit(f"vivi-prepare: {error}")
    print(
        f"{report['videos_used']} of {report['videos_found']} videos used,"
        f" {report['videos_set_aside']} set aside;"
        f" {report['shots']} shots, {report['frames_kept']} frames,"
        f" {report['video_seconds'] / 3600:.2f} hours of video"
        f" in {report['wall_seconds']:.1f} s"
    )
    for file in report["files"]:
        if file["status"] != "used":
            print(f"  {file['path']}: {file['reason']}")


def run():
    flags.mark_flags_as_required(["videos", "dataset"])
    app.run(main)


if __name__ == "__main__":
    run()
