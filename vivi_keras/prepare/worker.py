"""Worker process: prepares one video after another, on request.

Started as `python -m vivi_keras.video.worker`, never forked: TensorFlow and
FFmpeg both run threads that a fork would leave dead. One JSON object a line:
jobs come on standard input, progress and results go to standard output.
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
    sys.stdout = sys.stderr  # no library may disturb the answers
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        _answer(answers, _work(json.loads(line), answers))


def _work(job, answers):
    told = time.monotonic()

    def progress(num_frames, seconds, duration):
        nonlocal told
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
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
    except Exception as error:  # a bug must cost one file, not the run
        return {"failed": f"{type(error).__name__}: {error}", "kind": "bug"}
    return {"done": True}


def _answer(answers, message):
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
