"""vivi-embed: makes an index of the frames and shots of a prepared data set.

Example:
  vivi-embed --module=module --dataset=data --videos=films --output=index
"""

import csv
import sys

from absl import app, flags

from vivi_keras import commands

_MODULE = flags.DEFINE_string(
    "module",
    None,
    "Folder of an exported encoder, or a registered name.",
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Folder of a data set that vivi-prepare wrote.",
)
_IMAGES = flags.DEFINE_string("images", None, "Folder of images to embed.")
_VIDEOS = flags.DEFINE_string(
    "videos",
    None,
    "Folder of the video files, for links that play them.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder of the index; run again to add new videos.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Image size in pixels; by default, the one that the module recommends.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    64,
    "Number of frames that are encoded at once.",
)
_BEAM = flags.DEFINE_string(
    "beam_pipeline_options",
    None,
    "Embed on a cluster with Apache Beam: its options, such as"
    " runner=FlinkRunner,flink_master=HOST:8081.",
)
_APPROXIMATE = flags.DEFINE_bool(
    "approximate",
    False,
    "Also build lists for approximate search, for millions of frames.",
)
_DUPLICATES = flags.DEFINE_bool(
    "duplicates",
    False,
    "Only list the shots of the index in --output that occur again in other"
    " videos; vivi-pretrain --config.data.duplicates=INDEX uses the list.",
)
_THRESHOLD = flags.DEFINE_float(
    "threshold", 0.98, "Minimum cosine of shots that --duplicates lists."
)


def main(argv):
    """Embeds what the flags name; prints a summary."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    for flag in (_OUTPUT,) if _DUPLICATES.value else (_MODULE, _OUTPUT):
        if not flag.value:
            raise app.UsageError(f"--{flag.name} must be given.")
    from vivi_keras import archive

    if _DUPLICATES.value:
        _list_duplicates(archive.open_index(_OUTPUT.value))
        return
    try:
        done = archive.embed(
            _MODULE.value,
            _OUTPUT.value,
            dataset=_DATASET.value,
            images=_IMAGES.value,
            videos=_VIDEOS.value,
            image_size=_IMAGE_SIZE.value,
            batch_size=_BATCH_SIZE.value,
            beam_options=_BEAM.value,
            show_progress=True,
        )
        _print_summary(done)
        if _APPROXIMATE.value:
            recall = archive.open_index(_OUTPUT.value).build_approximate()
            print(f"approximate search: recall at 10 {recall:.3f}")
        return
    except KeyboardInterrupt:
        said = "stopped; run it again to go on"
    commands.end("vivi-embed", said, 130)


def _list_duplicates(index):
    """Prints pairs of shots as CSV, most similar first; stores them, too."""
    from vivi_keras.archive import choose

    header, rows = choose.list_duplicates(index, _THRESHOLD.value)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([header, *rows])
    print(f"vivi-embed: {len(rows)} pairs", file=sys.stderr)


def _print_summary(done):
    print(
        f"{done['frames_added']} frames added, {done['frames_dropped']}"
        f" dropped; {done['videos']} videos, {done['shots']} shots,"
        f" {done['frames']} frames in {_OUTPUT.value};"
        f" {done['frames_per_second']:.0f} frames a second"
    )
    for name, reason in list(done["skipped"].items())[:50]:
        print(f"  {name}: set aside: {reason}")
    if len(done["skipped"]) > 50:
        print(f"  and {len(done['skipped']) - 50} more")


def run():
    """Entry point of the console script."""
    commands.run("vivi-embed", main)


if __name__ == "__main__":
    run()
