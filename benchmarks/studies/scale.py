"""Measures reading a data set of 10 million records.

    python benchmarks/studies/scale.py --output=DIR [--records=1000,10000000]
    python benchmarks/studies/scale.py --plan

The second command prints what a number of videos takes, by arithmetic from the
measurements in PLAN. The first writes data sets of small records, 1,000 in a
file. Only 4 of the files differ; the others are hard links to them, so 10
million records take little disk. The reader treats each link as a file of its
own. For each data set, a new process opens it as a run does. The process begins
with the usual limit of 1,024 open files. It prints the time to open the data
set, the time until the first batch at step 0 and at a late step, and the peak
memory after `--batches` batches. Then one process reads batches of all data
sets in turn; it prints the processor time of a batch.
"""

import argparse
import io
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from PIL import Image

RECORDS_PER_FILE = 1000
DIFFERENT_FILES = 4
LATE_EPOCHS = 50  # the late step is in this epoch
OPEN_FILES = 1024
# What `plan` starts from: [R] YouTube-8M and the paper, recalled; otherwise the
# page with the measurement.
PLAN = {
    "videos": 3.7e6,  # [R]
    "seconds_per_video": 207.0,  # [R] 350,000 hours of 6.1 million videos
    "frames_per_video_second": 30.0,  # an assumption
    "seconds_per_shot": 5.0,  # an assumption
    "stored_frames_per_second": 1.0,  # vivi-prepare's default
    "shots_per_record": 8.0,  # vivi-prepare's default
    "bytes_per_frame": 27.6e3,  # docs/performance.md, film
    "bytes_per_file": 2.0**30,  # what `tfds build` aims at
    "prepared_frames_per_core_second": 14_315 / 58.7,  # docs/videos.md
    "images_per_card_second": 4_930.0,  # docs/performance.md, one H100
    "cards": 8.0,
    "core_seconds_per_image": 575e-6 / 0.89,  # docs/performance.md, input
    "images_per_clip": 8.0,
    "clips_per_step": 512.0,  # [R]
    "steps": 120_000.0,  # [R]
    "image_size": 224.0,
}


def write_dataset(directory, num_records):
    """Writes the data set of a number of records, unless it is there."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from vivi_keras.prepare import write_dataset as writer

    if (directory / "dataset_info.json").exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    num_files, rest = divmod(num_records, RECORDS_PER_FILE)
    if rest:
        raise ValueError(
            f"records must be multiples of {RECORDS_PER_FILE}. Got:"
            f" {num_records}"
        )
    serialize = writer._serializer()
    names = [
        directory
        / f"{writer.NAME}-train.array_record-{i:05d}-of-{num_files:05d}"
        for i in range(num_files)
    ]
    for number, path in enumerate(names):
        if number >= DIFFERENT_FILES:
            os.link(names[number % DIFFERENT_FILES], path)
            continue
        file = ArrayRecordWriter(str(path), "group_size:1")
        # Serializing takes most of the time; the records of a file differ in
        # their number alone.
        for place in range(RECORDS_PER_FILE):
            file.write(serialize(_record(number * RECORDS_PER_FILE + place)))
        file.close()
    sizes = sum(path.stat().st_size for path in names)
    writer._write_metadata(directory, [RECORDS_PER_FILE] * num_files, sizes)
    return directory


def _record(number):
    """4 shots of 2 frames of 32 x 32 pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32)).save(file, "JPEG", quality=75)
    times = np.arange(8, dtype=np.float32)
    return {
        "video": f"{number}.mp4",
        "video_id": number,
        "first_shot": 0,
        "frames": [file.getvalue()] * 8,
        "shot_index": [0, 0, 1, 1, 2, 2, 3, 3],
        "time_seconds": times,
        "shot_start_seconds": times[::2],
        "shot_stop_seconds": times[::2] + 2,
    }


def batches(directory, first_step, batch_size):
    from vivi_keras import data

    return iter(
        data.video_batches(
            directory, batch_size, image_size=32, first_step=first_step
        )
    )


def late_step(num_records, batch_size):
    """A step in the last of LATE_EPOCHS epochs."""
    return (LATE_EPOCHS * num_records - num_records // 2) // batch_size


def opened(directory, num_records, batch_size, num_batches):
    """What one process measures on a data set; see the module's docstring."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
    import tensorflow as tf

    from vivi_keras import data
    from vivi_keras.data.records import Records

    next(iter(tf.data.Dataset.range(1).map(lambda x: x + 1)))
    data.fingerprint  # noqa: B018  # imported before anything is timed
    report = {"records": num_records, "import_mebibytes": _peak_mebibytes()}
    with timed(report, "open_seconds"):
        assert_equal(len(Records(directory)), num_records)
    with timed(report, "fingerprint_seconds"):
        data.fingerprint(directory)
    with timed(report, "first_batch_seconds"):
        next(batches(directory, 0, batch_size))
    late = late_step(num_records, batch_size)
    with timed(report, "late_batch_seconds"):
        stream = batches(directory, late, batch_size)
        next(stream)
    following = next(stream)
    again = next(batches(directory, late + 1, batch_size))
    for name in following:
        np.testing.assert_array_equal(following[name], again[name])
    stream = batches(directory, 0, batch_size)
    for _ in range(num_batches):
        next(stream)
    report["batches"] = num_batches
    report["peak_mebibytes"] = _peak_mebibytes()
    return report


class timed:
    """Stores the seconds that a block took under a key of a dict."""

    def __init__(self, report, key):
        self.report, self.key = report, key

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *error):
        seconds = time.perf_counter() - self.start
        self.report[self.key] = round(seconds, 2)


def assert_equal(found, expected):
    if found != expected:
        raise ValueError(f"must be {expected}. Got: {found}")


def _peak_mebibytes():
    # Not getrusage, whose figure includes the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


def in_turn(directories, batch_size, rounds, batches_per_round):
    """Milliseconds of processor time of a batch: medians, least and most."""
    streams = {n: batches(d, 0, batch_size) for n, d in directories.items()}
    taken = {count: [] for count in streams}
    order = [*streams]
    for stream in streams.values():
        for _ in range(5):
            next(stream)
    for _ in range(rounds):
        for count in order:
            time.sleep(0.5)  # until no other stream fills its buffers
            start = time.process_time()
            for _ in range(batches_per_round):
                next(streams[count])
            seconds = time.process_time() - start
            taken[count].append(1000 * seconds / batches_per_round)
        order.reverse()
    first = [*taken.values()][0]
    return [
        {
            "records": count,
            "processor_ms_per_batch": round(statistics.median(each), 1),
            "ratio_to_first": [
                round(f([a / b for a, b in zip(each, first, strict=True)]), 2)
                for f in (statistics.median, min, max)
            ],
        }
        for count, each in taken.items()
    ]


def plan():
    """Lines of what PLAN takes."""
    p = PLAN
    seconds = p["videos"] * p["seconds_per_video"]
    frames = seconds * p["stored_frames_per_second"]
    record_seconds = p["seconds_per_shot"] * p["shots_per_record"]
    # The last record of a video is half full on average.
    records = seconds / record_seconds + p["videos"] / 2
    size = frames * p["bytes_per_frame"]
    core_hours = (
        seconds
        * p["frames_per_video_second"]
        / p["prepared_frames_per_core_second"]
        / 3600
    )
    images = p["images_per_card_second"]
    clips = images / p["images_per_clip"]
    step_images = p["clips_per_step"] * p["images_per_clip"]
    training_seconds = p["steps"] * step_images / (images * p["cards"])
    return [
        f"video: {seconds / 3600:,.0f} hours",
        f"records: {records / 1e6:.1f} million, {size / records / 1e6:.2f} MB"
        f" each",
        f"data set: {size / 1e12:.1f} TB in {size / p['bytes_per_file']:,.0f}"
        " files",
        f"index of the records in these files: {8 * records / 1e6:,.0f} MB",
        f"preparing: {core_hours:,.0f} core hours;"
        f" {core_hours / 1000:.0f} hours with 1,000 cores",
        f"a card reads: {clips:,.0f} records/s,"
        f" {clips * size / records / 1e6:,.0f} MB/s",
        f"cores that feed a card: {images * p['core_seconds_per_image']:.1f}",
        "network for a card, if other machines load its batches:"
        f" {images * 3 * p['image_size'] ** 2 / 1e6:,.0f} MB/s",
        f"training: {p['steps']:,.0f} steps of {step_images:,.0f} images,"
        f" {training_seconds / 3600:.1f} hours on {p['cards']:.0f} cards,"
        f" {p['steps'] * p['clips_per_step'] / records:.1f} epochs",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default="scale")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--records", default="1000,100000,10000000")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan:
        print("\n".join(plan()))
        return
    directories = {
        count: arguments.output / str(count)
        for count in map(int, arguments.records.split(","))
    }
    size = arguments.batch_size
    if arguments.only:
        directory = directories[arguments.only]
        found = opened(directory, arguments.only, size, arguments.batches)
        print(json.dumps(found))
        return
    report = {"opened": []}
    for count, directory in directories.items():
        write_dataset(directory, count)
        command = [sys.executable, *sys.argv, f"--only={count}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        report["opened"].append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(report["opened"][-1]), flush=True)
    report["in_turn"] = in_turn(directories, size, arguments.rounds, 40)
    for row in report["in_turn"]:
        print(json.dumps(row), flush=True)
    (arguments.output / "scale.json").write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
