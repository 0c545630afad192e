"""vivi-prepare: videos -> a data set for pretraining.

Example:
  vivi-prepare --videos=films --dataset=data --workers=4
"""

from absl import app, flags

from vivi_keras import commands, prepare
from vivi_keras.prepare import report as report_lib

_OPTIONS = (
    flags.DEFINE_string(
        "videos",
        None,
        "Folder of video files, a text file with a path a line, or a pattern"
        " such as gs://bucket/*.mp4.",
    ),
    flags.DEFINE_string("dataset", None, "Folder of the data set."),
    flags.DEFINE_float(
        "frames_per_second", 1.0, "Frames kept of each second of video."
    ),
    flags.DEFINE_integer(
        "short_side", 256, "Short side of stored frames, in pixels."
    ),
    flags.DEFINE_enum(
        "detector",
        "adaptive",
        ["adaptive", "content", "histogram"],
        "How shots are found.",
    ),
    flags.DEFINE_float(
        "max_shot_seconds", None, "Split shots that are longer."
    ),
    flags.DEFINE_float(
        "min_shot_seconds", 0.5, "Shorter shots are merged or dropped."
    ),
    flags.DEFINE_enum(
        "short_shots", "merge", ["merge", "drop"], "What they become."
    ),
    flags.DEFINE_integer(
        "max_frames_per_shot", 8, "Frames are thinned evenly beyond it."
    ),
    flags.DEFINE_integer("jpeg_quality", 90, "1 to 100."),
    flags.DEFINE_enum("decoder", "pyav", ["pyav", "tfio"], "What decodes."),
    flags.DEFINE_string(
        "frames_dirs", None, "Folder of folders of extracted frames."
    ),
    flags.DEFINE_float(
        "frames_dirs_per_second", 1.0, "Rate at which they were extracted."
    ),
    flags.DEFINE_string(
        "sequence_examples",
        None,
        "TFRecord file, or folder of such, of SequenceExamples with"
        " image/encoded and image/timestamp.",
    ),
    flags.DEFINE_integer("shots_per_record", 8, "Most shots of one record."),
    flags.DEFINE_integer("workers", 1, "Processes that decode at once."),
    flags.DEFINE_float(
        "hang_seconds", 60.0, "Longest time without one more frame."
    ),
    flags.DEFINE_float(
        "file_seconds", 4 * 3600.0, "Longest time for one file."
    ),
    flags.DEFINE_bool(
        "strict", False, "Exit with status 1 where a video was set aside."
    ),
)


def main(argv):
    """Prepares what the flags name; prints what became of it."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    options = {option.name: option.value for option in _OPTIONS}
    try:
        report = prepare.prepare(
            options.pop("videos"),
            options.pop("dataset"),
            show_progress=True,
            **options,
        )
    except KeyboardInterrupt:
        report = None
    if report is None:
        commands.end("vivi-prepare", "stopped; run it again to go on", 130)
    print(
        f"{report['videos_used']} of {report['videos_found']} videos used,"
        f" {report['videos_set_aside']} set aside,"
        f" {report['videos_damaged']} used though damaged;"
        f" {report['shots']} shots, {report['frames_kept']} frames,"
        f" {report['video_seconds'] / 3600:.2f} hours of video"
        f" in {report['wall_seconds']:.1f} s"
    )
    for line in report_lib.table(report):
        print(line)


def run():
    """Entry point of the console script."""
    flags.mark_flag_as_required("dataset")
    commands.run("vivi-prepare", main)


if __name__ == "__main__":
    run()
