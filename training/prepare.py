"""vivi-prepare: makes a data set for pretraining from videos.

Example:
  vivi-prepare --videos=films --dataset=data --workers=4
"""

from absl import app, flags

from vivi_keras import commands, prepare, video
from vivi_keras.prepare import report as report_lib
from vivi_keras.prepare import watchdog

_OPTIONS = (
    flags.DEFINE_string(
        "videos",
        None,
        "Folder of video files, a text file with one path per line (relative"
        " paths start at the working directory; # begins a comment line), or a"
        " pattern such as gs://bucket/*.mp4.",
    ),
    flags.DEFINE_string("dataset", None, "Folder of the data set."),
    *commands.define_flags(video.Settings),
    flags.DEFINE_string(
        "frames_dirs", None, "Folder of folders of extracted frames."
    ),
    flags.DEFINE_float(
        "frames_dirs_per_second", 1.0, "Frames a second in --frames_dirs."
    ),
    flags.DEFINE_string(
        "sequence_examples",
        None,
        "TFRecord file of SequenceExamples with image/encoded and"
        " image/timestamp, or a folder of such files.",
    ),
    flags.DEFINE_integer("shots_per_record", 8, "Maximum shots per record."),
    flags.DEFINE_integer("workers", 1, "Number of decoding processes."),
    *commands.define_flags(watchdog.Limits),
    flags.DEFINE_bool(
        "strict", False, "Exit with status 1 if a video was set aside."
    ),
)


def main(argv):
    """Prepares the videos named by the flags; prints a summary."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
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
    print(f"{report['frames_per_minute']:.1f} frames kept a minute of video")
    for line in report["hints"]:
        print(f"  hint: {line}")
    for line in report_lib.table(report):
        print(line)


def run():
    """Entry point of the console script."""
    flags.mark_flag_as_required("dataset")
    commands.run("vivi-prepare", main)


if __name__ == "__main__":
    run()
