"""Measures the input pipeline's speed against bare JPEG decoding.

    python benchmarks/input.py --output=DIR [--records=1000,10000,100000]
    python benchmarks/input.py --output=DIR --frames=DATASET

Writes a data set with the largest records that vivi-prepare makes by default,
of synthetic frames (smooth textures with grain, 456 x 256 JPEG) or of frames
from a vivi-prepare data set, which is also measured unchanged. Also writes a
data set of few, small records. On the same cores, in one run, it compares
in turn: the pipeline (records -> clips -> crops -> colour views), the part of
it in a run's input (the training step does the colours), the same part without
tf.data ("threads", what a run with JAX reads), and bare decoding and resizing
of the same frames. Prints the median of the ratios within a round, for wall
time and for processor time. Synthetic frames are also written as growing
numbers of small records, to check that the speed and the memory stay constant.
"""

import argparse
import itertools
import json
import pathlib
import resource
import statistics
import time

import numpy as np
import tensorflow as tf

from vivi_keras import data
from vivi_keras.data import pipeline as pipeline_lib
from vivi_keras.data import records as records_lib
from vivi_keras.data.records import Records

HEIGHT, WIDTH = 256, 456
SHOTS_PER_RECORD, FRAMES_PER_SHOT = 8, 8
NUM_SHOTS, NUM_FRAMES = 4, 2


def make_jpegs(count, seed=0):
    """JPEG frames with the detail and size of film frames."""
    generator = np.random.default_rng(seed)
    jpegs = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (8, 14, 3)).astype(np.float32)
        fine = generator.integers(-40, 40, (64, 114, 3)).astype(np.float32)
        image = tf.image.resize(coarse, (HEIGHT, WIDTH), "bicubic")
        image += tf.image.resize(fine, (HEIGHT, WIDTH), "bicubic")
        image += generator.normal(0, 3, (HEIGHT, WIDTH, 1))
        pixels = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
        jpegs.append(tf.io.encode_jpeg(pixels, quality=90).numpy())
    return jpegs


def frames_of(dataset):
    """The JPEG frames of a vivi-prepare data set."""
    records, jpegs = Records(dataset), []
    for index in range(len(records)):
        record = records.read(index)
        places = records_lib.Example(record).strings("frames")
        jpegs += [record[slice(*place)] for place in places]
    return jpegs


def write_records(directory, num_records, jpegs, frames_per_record):
    """Writes a data set in the library's schema, one record per video."""
    import tensorflow_datasets as tfds

    directory.mkdir(parents=True, exist_ok=True)
    features = tfds.features.FeaturesDict(
        {
            "video_id": np.int64,
            "frames": tfds.features.Sequence(
                tfds.features.Image(
                    shape=(None, None, 3), encoding_format="jpeg"
                )
            ),
            "shot_index": tfds.features.Sequence(np.int64),
        }
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="input",
        version="1.0.0",
        data_dir=str(directory),
        module_name="input",
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=1000, file_format="array_record"
    )
    writer.initialize_splits(["train"])
    shot_index = np.arange(frames_per_record) * SHOTS_PER_RECORD
    shot_index = (shot_index // frames_per_record).tolist()
    for record in range(num_records):
        first = record * 7
        frames = [
            jpegs[(first + k) % len(jpegs)] for k in range(frames_per_record)
        ]
        example = {
            "video_id": record,
            "frames": frames,
            "shot_index": shot_index,
        }
        writer.add_examples({"train": [features.encode_example(example)]})
    writer.close_all()
    return directory


def crops(directory, image_size, batch_size):
    """Endless batches of a run's input; the training step does the colours."""
    batches = data.video_batches(
        directory, batch_size, NUM_SHOTS, NUM_FRAMES, image_size
    )
    return batches.map(lambda batch: _flat(batch, image_size))


def pipeline(directory, image_size, batch_size):
    """Endless batches of views."""

    def views(batch):
        frames = _flat(batch, image_size)
        return data.colour_views(frames, batch["video_id"][0])

    batches = data.video_batches(
        directory, batch_size, NUM_SHOTS, NUM_FRAMES, image_size
    )
    return batches.map(views, tf.data.AUTOTUNE).prefetch(2)


def threads(directory, image_size, batch_size):
    """The batches of `crops`, loaded by our own threads."""
    with pipeline_lib.without_tf_data():
        batches = data.video_batches(
            directory, batch_size, NUM_SHOTS, NUM_FRAMES, image_size
        )
    for batch in batches:
        yield batch["frames"].reshape(-1, image_size, image_size, 3)


def _flat(batch, image_size):
    return tf.reshape(batch["frames"], [-1, image_size, image_size, 3])


def bare(jpegs, image_size, batch_size):
    """Endless batches, only decoded and resized, from memory."""
    frames = batch_size * NUM_SHOTS * NUM_FRAMES

    def decode(jpeg):
        image = tf.io.decode_jpeg(jpeg, channels=3)
        return tf.image.resize(image, (image_size, image_size))

    dataset = tf.data.Dataset.from_tensor_slices(jpegs).repeat()
    dataset = dataset.map(decode, tf.data.AUTOTUNE).batch(frames, True)
    return dataset.prefetch(2)


def frames_per_second(iterator, seconds):
    """Rates of a warm iterator: per second of wall time and processor time.

    The second is the rate of one core, whatever else the machine does.
    """
    count, start = 0, np.array([time.perf_counter(), time.process_time()])
    passed = np.zeros(2)
    while passed[0] < seconds:
        count += next(iterator).shape[0]
        passed = [time.perf_counter(), time.process_time()] - start
    return count / passed


def compare(directory, jpegs, image_size, batch_size, rounds, seconds):
    """Medians of the alternating rates and of their ratios to bare."""
    print(f"{directory}, {image_size} px", flush=True)
    sides = {
        "views": iter(pipeline(directory, image_size, batch_size)),
        "crops": iter(crops(directory, image_size, batch_size)),
        "threads": threads(directory, image_size, batch_size),
        "bare": iter(bare(jpegs, image_size, batch_size)),
    }
    for side in sides.values():
        frames_per_second(side, 2 * seconds)  # warm
    rates = {name: [] for name in sides}
    names = [*sides]
    for _ in range(rounds):
        for name in names:
            _wait_for_buffers()
            for _ in range(4):  # skips batches that are already buffered
                next(sides[name])
            rates[name].append(frames_per_second(sides[name], seconds))
        names.reverse()
    report = {"directory": str(directory), "image_size": image_size}
    rates = {name: np.array(each) for name, each in rates.items()}
    for name, each in rates.items():  # [rounds, 2]
        report[name] = {"frames_per_second": _rounded(each)}
        if name != "bare":
            ratios = each / rates["bare"]
            report[name]["ratio"] = _rounded(ratios)
            report[name]["least"] = ratios.min(0).round(3).tolist()
            report[name]["most"] = ratios.max(0).round(3).tolist()
    return report


def _wait_for_buffers(pause=0.2):
    """Waits until no side fills its buffers, which would slow the next."""
    busy = pause
    while busy > pause / 10:
        before = time.process_time()
        time.sleep(pause)
        busy = time.process_time() - before


def _rounded(each):
    """Medians for wall time and processor time."""
    return np.median(each, 0).round(3).tolist()


def bytes_per_used_byte(directory, mean_jpeg):
    """Bytes of a record divided by bytes of the frames a clip uses."""
    paths = pathlib.Path(directory).glob("*.array_record*")
    size = sum(path.stat().st_size for path in paths) / len(Records(directory))
    return size / (NUM_SHOTS * NUM_FRAMES * mean_jpeg)


def flatness(output, jpegs, counts, image_size, batch_size, seconds):
    """Rate and peak memory for data sets with more and more records."""
    rows = []
    for count in counts:
        directory = write_records(output / f"{count}", count, jpegs, 8)
        start = time.perf_counter()
        iterator = iter(pipeline(directory, image_size, batch_size))
        next(iterator)
        first = time.perf_counter() - start
        frames_per_second(iterator, seconds)
        rates = [frames_per_second(iterator, seconds) for _ in range(5)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(
            {
                "records": count,
                "first_batch_seconds": first,
                "frames_per_second": _rounded(rates),
                "peak_mebibytes": peak,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--frames", type=pathlib.Path, metavar="DATASET")
    parser.add_argument("--records", default="1000,10000,100000")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    given = arguments.frames
    jpegs = make_jpegs(64) if given is None else frames_of(given)
    small = [_shrunk(jpeg) for jpeg in jpegs[:16]]
    mean = statistics.mean(map(len, jpegs))
    full, batch = SHOTS_PER_RECORD * FRAMES_PER_SHOT, arguments.batch_size
    # Folder -> the frames in it.
    directories = {
        write_records(arguments.output / "full", 64, jpegs, full): jpegs,
        write_records(arguments.output / "few", batch, small, 8): small,
    }
    if given is not None:
        directories[given] = jpegs
    report = {
        "mean_jpeg_bytes": mean,
        "bytes_per_used_byte": {
            str(directory): bytes_per_used_byte(
                directory, statistics.mean(map(len, frames))
            )
            for directory, frames in directories.items()
        },
    }
    print(json.dumps(report), flush=True)
    report["speed"] = []
    for directory, image_size in itertools.product(directories, (64, 224)):
        report["speed"].append(
            compare(
                directory,
                directories[directory],
                image_size,
                arguments.batch_size,
                arguments.rounds,
                arguments.seconds,
            )
        )
        print(json.dumps(report["speed"][-1]), flush=True)
    if given is None:
        # Small frames, so that 100,000 records fit on a small disk.
        report["flatness"] = flatness(
            arguments.output,
            small,
            [int(count) for count in arguments.records.split(",")],
            64,
            arguments.batch_size,
            arguments.seconds,
        )
    path = arguments.output / "input.json"
    path.write_text(json.dumps(report, indent=2))


def _shrunk(jpeg):
    image = tf.image.resize(tf.io.decode_jpeg(jpeg), (64, 96))
    return tf.io.encode_jpeg(tf.cast(image, "uint8")).numpy()


if __name__ == "__main__":
    main()
