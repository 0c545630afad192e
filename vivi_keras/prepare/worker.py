"""Worker process: prepares one video after another, on request.

Started as `python -m vivi_keras.prepare.worker`, never forked: TensorFlow and
FFmpeg run threads, which a fork does not copy. Reads jobs from standard input
and writes progress and results to standard output, one JSON object per line.
"""

import json
import sys
import time

import cv2

from vivi_keras.prepare import cache
from vivi_keras.video import decode, settings, sources

PROGRESS_SECONDS = 0.5


def main():
    cv2.setNumThreads(1)
    answers = sys.stdout
    sys.stdout = sys.stderr  # prints of libraries must not mix with answers
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        _answer(answers, _work(json.loads(line), answers))


def _work(job, answers):
    last = time.monotonic()

    def progress(num_frames, seconds, duration):
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            _answer(
                answers,
                {
                    "frames": num_frames,
                    "seconds": seconds,
                    "duration": duration,
                },
            )

    try:
        cache.write_entry(
            job["entry"],
            sources.Source(**job["source"]),
            settings.Settings(**job["settings"]),
            threads=job["threads"],
            progress=progress,
        )
    except decode.VideoError as error:
        return {"failed": str(error), "kind": "unusable"}
    except OSError as error:
        return {"failed": f"{error}", "kind": "system", "errno": error.errno}
    except Exception as error:  # a bug must not end the run
        return {"failed": f"{type(error).__name__}: {error}", "kind": "bug"}
    return {"done": True}


def _answer(answers, message):
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
