"""Times exported encoders: ours and keras.applications.ResNet50V2.

    python benchmarks/inference.py                  steady speed at 224 px
    python benchmarks/inference.py --load           first features of a process
    python benchmarks/inference.py --int8=DATASET   int8 and its kNN accuracy
    python benchmarks/inference.py --embed=DATASET  vivi-embed and the module

Both networks have width 1 and are exported by export_encoder. They run in turn,
and ratios are taken within a round, so that other work on the machine slows
both equally. Processor time and wall time are shown. TFLite and ONNX (the extra
[convert]) are included if installed.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402

SIDE = 224
FIRST_FEATURES = """
import sys
import numpy as np
import tensorflow as tf
module = tf.saved_model.load(sys.argv[1])
images = np.zeros((1, 224, 224, 3), "float32")
print(module(images).shape)
"""
# The repository's modules, and tasks that need no download.
MODULES = ("vivi-r14w025-film/1", "vivi-r14w025-co/1")
INT8_TASKS = ("digits", "fashion_mnist")


def export_both(folder):
    """Exports both networks; returns name -> folder of the module."""
    import keras

    import vivi_keras

    keras.utils.set_random_seed(0)
    networks = {
        "keras.applications": keras.applications.ResNet50V2(
            include_top=False,
            weights=None,
            pooling="avg",
            input_shape=(None, None, 3),
        ),
        "ours": vivi_keras.ResNet50V2(),
    }
    return {
        name: vivi_keras.export_encoder(
            network, folder / name, metadata={"image_size": [SIDE, SIDE]}
        )
        for name, network in networks.items()
    }


def encoders_of(paths, folder):
    """name -> function of images to features, including converted ones."""
    import tensorflow as tf

    from vivi_keras.export import convert

    def saved(path):
        module = tf.saved_model.load(path)
        function = module.signatures["serving_default"]
        # Keep `module` alive: the function does not work without it.
        return lambda images, module=module: function(images=images)[
            "default"
        ].numpy()

    found = {name: saved(path) for name, path in paths.items()}
    for kind, make, load in (
        ("tflite", convert.to_tflite, convert.load_tflite),
        ("onnx", convert.to_onnx, convert.load_onnx),
    ):
        file = folder / f"ours.{kind}"
        try:
            make(paths["ours"], file)
        except ImportError as reason:
            print(f"{kind} is left out: {reason}")
            continue
        found[f"ours, {kind}"] = load(file)
    return found


def processor_seconds():
    times = os.times()
    return times.user + times.system


def measure(encode, images, repeats):
    """(wall, processor) seconds per call."""
    wall, processor = time.perf_counter(), processor_seconds()
    for _ in range(repeats):
        encode(images)
    return (
        (time.perf_counter() - wall) / repeats,
        (processor_seconds() - processor) / repeats,
    )


def steady(rounds):
    """Prints latency and throughput at batch 1 and 32."""
    with tempfile.TemporaryDirectory() as aside:
        folder = pathlib.Path(aside)
        encoders = encoders_of(export_both(folder), folder)
        for batch, repeats in ((1, 10), (32, 1)):
            random = np.random.default_rng(0)
            images = random.random((batch, SIDE, SIDE, 3), "float32")
            times = {name: [] for name in encoders}
            for encode in encoders.values():
                encode(images)
            for _ in range(rounds):
                for name, encode in encoders.items():
                    times[name].append(measure(encode, images, repeats))
            show(batch, times)


def show(batch, times):
    base = times["keras.applications"]
    for name, rows in times.items():
        wall = statistics.median(wall for wall, _ in rows)
        ratios = [
            [
                row[which] / other[which]
                for row, other in zip(rows, base, strict=True)
            ]
            for which in (0, 1)
        ]
        spread = statistics.quantiles(ratios[0], n=4)
        print(
            f"batch {batch:2d}  {name:20s} {1e3 * wall:8.1f} ms"
            f" {batch / wall:6.1f} images/s  wall x"
            f"{statistics.median(ratios[0]):.3f}"
            f" [{spread[0]:.3f}, {spread[2]:.3f}]  processor x"
            f"{statistics.median(ratios[1]):.3f}",
            flush=True,
        )


def load(rounds):
    """Prints the seconds from process start to the first features."""
    with tempfile.TemporaryDirectory() as aside:
        path = export_both(pathlib.Path(aside))["ours"]
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-I", "-c", FIRST_FEATURES, path],
                check=True,
                capture_output=True,
                cwd=aside,
            )
            seconds.append(time.perf_counter() - start)
    print(
        f"clean process to first features: median"
        f" {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s of"
        f" {rounds}"
    )


def embed(dataset, name, rounds):
    """Prints the rate of vivi-embed beside the module's on decoded frames.

    Both take batches of 64. The module's frames are decoded and resized before
    the clock starts; vivi-embed's rate is the one that it prints: from the
    first record to the finished index.
    """
    from vivi_keras import archive
    from vivi_keras.features import encoder as encoder_lib
    from vivi_keras.features import frames
    from vivi_keras.models import registry

    with tempfile.TemporaryDirectory() as aside:
        folder = pathlib.Path(aside)
        if name is None:
            name = export_both(folder)["ours"]
        encoder = encoder_lib.load_encoder(registry.find(name))
        size = encoder.describe()["metadata"]["image_size"]
        stored = frames.StoredFrames(dataset)
        images = np.concatenate(
            [
                encoder_lib.resize_images(image[None], size)
                for image in stored.read(range(sum(stored.footage.num_frames)))
            ]
        )

        def bare():
            for start in range(0, len(images), 64):
                encoder.features(images[start : start + 64])

        bare()  # traces
        rates = []
        for number in range(rounds):
            seconds, _ = measure(lambda _: bare(), None, 1)
            done = archive.embed(name, folder / f"{number}", dataset=dataset)
            rates.append((len(images) / seconds, done["frames_per_second"]))
    alone, ours = np.median(rates, axis=0)
    share = np.median([embedded / module for module, embedded in rates])
    print(
        f"{len(images)} frames at {size[0]} px: module alone {alone:.1f} a"
        f" second, vivi-embed {ours:.1f}; vivi-embed's share {share:.3f}"
    )


def int8(dataset):
    """Prints kNN accuracy of the shipped modules as float32 and as int8."""
    from vivi_keras.export import convert, metadata
    from vivi_keras.models import registry

    for name in MODULES:
        path = registry.find(name)
        size = tuple(metadata.read_metadata(path)["image_size"])
        with tempfile.TemporaryDirectory() as aside:
            file = pathlib.Path(aside) / "int8.tflite"
            frames = convert.calibration_frames(dataset, size)
            convert.to_tflite(path, file, calibration=frames)
            encoders = {
                "float32": convert.load_module(path),
                "int8": convert.load_tflite(file),
            }
            num_bytes = file.stat().st_size
            for task in INT8_TASKS:
                scores = convert.knn_accuracies(encoders, size, task)
                print(
                    f"{name} {task}: float32 {100 * scores['float32']:.1f},"
                    f" int8 {100 * scores['int8']:.1f}; {num_bytes:,} bytes",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--load", action="store_true")
    parser.add_argument(
        "--int8", metavar="DATASET", help="calibrate on this prepared data set"
    )
    parser.add_argument(
        "--embed", metavar="DATASET", help="embed this prepared data set"
    )
    parser.add_argument(
        "--module", help="encoder for --embed; ours at 224 px if not given"
    )
    arguments = parser.parse_args()
    if arguments.load:
        load(arguments.rounds)
    elif arguments.int8:
        int8(arguments.int8)
    elif arguments.embed:
        embed(arguments.embed, arguments.module, arguments.rounds)
    else:
        steady(arguments.rounds)


if __name__ == "__main__":
    main()
