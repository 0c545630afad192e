"""vivi-search: finds the shots of an archive that look like an image.

Examples:
  vivi-search --index=index --image=photo.jpg --output=hits.html
  vivi-search --index=index --video=film.mp4 --seconds=12.5 --json
"""

import json
import sys

from absl import app, flags

from vivi_keras import commands

_INDEX = flags.DEFINE_string("index", None, "Folder that vivi-embed wrote.")
_IMAGE = flags.DEFINE_string("image", None, "Image to search for.")
_VIDEO = flags.DEFINE_string("video", None, "Video with a frame to search for.")
_SECONDS = flags.DEFINE_float("seconds", None, "Time of the frame in --video.")
_K = flags.DEFINE_integer("k", 20, "Number of shots to find.", 1)
_APPROXIMATE = flags.DEFINE_bool(
    "approximate",
    False,
    "Search the lists of vivi-embed --approximate: faster for millions of"
    " frames, but a neighbour may be missed.",
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
_OUTPUT = flags.DEFINE_string("output", None, "HTML page to write.")
_VIDEOS = flags.DEFINE_string(
    "videos", None, "Folder of the video files, if they moved."
)
_MODULE = flags.DEFINE_string(
    "module", None, "Where the index's module is, if it moved."
)


def main(argv):
    """Searches as the flags say; prints what was found."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    if not _INDEX.value:
        raise app.UsageError("--index must be given.")
    if (_IMAGE.value is None) == (_VIDEO.value is None):
        raise app.UsageError("One of --image and --video must be given.")
    if (_VIDEO.value is None) != (_SECONDS.value is None):
        raise app.UsageError(
            "--seconds must be given with --video, and only then."
        )
    from vivi_keras import archive
    from vivi_keras.archive import search

    index = archive.open_index(_INDEX.value)
    image, name = _query(search, index)
    vector = search.vector(
        search.open_encoder(index, _MODULE.value), index, image
    )
    hits = index.search(vector, _K.value, _APPROXIMATE.value)
    if _JSON.value:
        print(json.dumps(search.rows(hits), indent=1))
    else:
        print("\n".join(search.table(hits)))
    for note in search.notes(index, hits, _VIDEOS.value):
        print(f"vivi-search: {note}", file=sys.stderr)
    if _OUTPUT.value is not None:
        search.write(_OUTPUT.value, index, hits, name, image, _VIDEOS.value)
        print(f"wrote {_OUTPUT.value}", file=sys.stderr)


def _query(search, index):
    """The query's image and name."""
    if _IMAGE.value is not None:
        return search.read_image(_IMAGE.value), _IMAGE.value
    settings = (index.manifest["source"]["settings"] or {}).get("settings")
    frame = search.read_frame(
        _VIDEO.value,
        _SECONDS.value,
        **({"short_side": settings["short_side"]} if settings else {}),
    )
    return frame, f"{_VIDEO.value} at {_SECONDS.value:.2f} s"


def run():
    """Entry point of the console script."""
    commands.run("vivi-search", main)


if __name__ == "__main__":
    run()
