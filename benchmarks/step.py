"""Compares the time of a training step with that of a supervised step.

A VIVI-Ex(4) step (views, encoder, heads, losses, update) is compared with a
Keras step of the same encoder on as many images. The two alternate, and the
median ratio of the pairs is printed. With --labelled, a co-training step is
compared with one plain step on its frames plus one on its images. With
--backends, processes of these backends of Keras take turns; the ratios of
their times to those of the first one are printed, too. --encoder takes any
encoder of `vivi-pretrain --list_encoders`, with random weights; --keep_close
adds `config.adapt.keep_close`.

    python benchmarks/step.py --width=0.25
    python benchmarks/step.py --width=1 --videos=4
    python benchmarks/step.py --width=0.25 --labelled=64
    KERAS_BACKEND=jax python benchmarks/step.py --policy=mixed_bfloat16
    python benchmarks/step.py --backends=tensorflow,jax
    python benchmarks/step.py --encoder=efficientnet_lite0 --row=adapt_frame
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from vivi_keras.models import adapt, encoders
from vivi_keras.objective import Objective, make_level
from vivi_keras.trainer.model import ViviModel
from vivi_keras.training.configs import get_config

NUM_CLASSES = 1000


def optimizer():
    return keras.optimizers.SGD(0.01, momentum=0.9)


def make_encoder(flags):
    return encoders.make_encoder(
        flags.encoder,
        encoders.NONE,
        image_size=flags.image_size,
        width=flags.width,
        units=tuple(flags.units),
    )


def pixels(*shape):
    """Uniform noise: the content of the images does not change the time."""
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


def vivi_step(flags):
    """A function that runs one step of the named row."""
    config = get_config(flags.row)
    levels = {kind: {**rest} for kind, rest in config.objective.items()}
    data, size = config.data, flags.image_size
    clip = (flags.videos, data.num_shots, data.frames_per_shot)
    if data.copies > 1:
        clip = (*clip, data.copies)
    batch = {
        "frames": pixels(*clip, size, size, 3),
        "shot_mask": np.ones(clip[:2], bool),
        "video_id": np.arange(flags.videos),
    }
    if flags.labelled:
        levels["supervised"] = {"num_classes": NUM_CLASSES}
        batch["image"] = pixels(flags.labelled, size, size, 3)
        batch["label"] = np.arange(flags.labelled) % NUM_CLASSES
    guard = None
    if flags.keep_close:
        guard = adapt.Guard(start=make_encoder(flags), keep_close=0.1)
    model = ViviModel(
        make_encoder(flags),
        Objective([make_level(kind, **rest) for kind, rest in levels.items()]),
        views=data.views,
        guard=guard,
    )
    model.compile(optimizer(), jit_compile=flags.jit)
    return stepper(model, batch), int(np.prod(clip)) * model.objective.num_turns


def plain_step(flags, num_images):
    """A function that runs one supervised step."""
    encoder = make_encoder(flags)
    images = keras.Input((flags.image_size, flags.image_size, 3))
    features = encoder(images)
    logits = keras.layers.Dense(NUM_CLASSES, dtype="float32")(features)
    model = keras.Model(images, logits)
    model.compile(
        optimizer(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=flags.jit,
    )
    size = flags.image_size
    batch = pixels(num_images, size, size, 3).astype("float32") / 255
    return stepper(model, batch, np.arange(num_images) % NUM_CLASSES)


def stepper(model, *batch):
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)

    def step():
        # Reading the loss waits until the device is done.
        return float(model.train_on_batch(*batch, return_dict=True)["loss"])

    return step


def timed(step):
    """Seconds of wall time, and of processor time on all cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def serve(step):
    """Runs a step and prints its times for each line of standard input."""
    step(), step()  # traces and autotunes
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*timed(step), flush=True)


def compare_backends(backends, rounds, arguments):
    """Times the step of each backend in turn, each in its own process."""
    processes = {}
    for backend in backends:
        processes[backend] = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--serve"],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        answer = processes[backend].stdout.readline()
        if answer != "ready\n":
            raise RuntimeError(f"{backend} ended before its first step")
    times = {backend: [] for backend in backends}
    for _ in range(rounds):
        for backend, process in processes.items():
            print(file=process.stdin, flush=True)
            answer = process.stdout.readline()
            times[backend].append([float(word) for word in answer.split()])
    for process in processes.values():
        process.stdin.close()
        process.wait()
    first = times[backends[0]]
    for backend in backends:
        for clock, name in enumerate(("wall", "CPU")):
            each = [row[clock] for row in times[backend]]
            ratios = [
                a / row[clock] for a, row in zip(each, first, strict=True)
            ]
            print(
                f"{backend:10} {name:4}"
                f" {1e3 * statistics.median(each):8.1f} ms, ratio to"
                f" {backends[0]} {statistics.median(ratios):.3f}"
                f" ({min(ratios):.3f} to {max(ratios):.3f})"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", default="vivi_ex4", help="a config's name")
    parser.add_argument("--encoder", default="resnet50v2")
    parser.add_argument("--keep_close", action="store_true")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--units", type=int, nargs=4, default=[3, 4, 6, 3])
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--labelled", type=int, default=0, help="images")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--policy", default="float32", help="dtype policy")
    parser.add_argument("--jit", action="store_true", help="compile by XLA")
    parser.add_argument("--backends", help="such as tensorflow,jax")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.backends and not flags.serve:
        compare_backends(flags.backends.split(","), flags.rounds, sys.argv[1:])
        return
    flags.jit = flags.jit or keras.backend.backend() == "jax"
    keras.config.set_dtype_policy(flags.policy)
    whole, num_images = vivi_step(flags)
    if flags.serve:
        serve(whole)
        return
    parts = [plain_step(flags, num_images)]
    if flags.labelled:
        parts.append(plain_step(flags, flags.labelled))
    for step in (whole, *parts):  # traces and autotunes
        step(), step()
    rounds = []
    for _ in range(flags.rounds):
        first = timed(whole)
        rounds.append((first, *(timed(step) for step in parts)))
    print(
        f"{keras.backend.backend()}, {flags.row}, {flags.encoder},"
        f" width {flags.width:g},"
        f" {flags.image_size} px, {num_images} encoder images"
        f" + {flags.labelled} labelled, {flags.policy}, {flags.rounds} rounds"
    )
    for clock, name in enumerate(("wall", "CPU")):
        ours = [r[0][clock] for r in rounds]
        plain = [sum(part[clock] for part in r[1:]) for r in rounds]
        ratios = sorted(a / b for a, b in zip(ours, plain, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(
            f"{name:4} {1e3 * statistics.median(ours):8.1f} ms, plain"
            f" {1e3 * statistics.median(plain):8.1f} ms, ratio"
            f" {statistics.median(ratios):.3f} (quartiles {low:.3f} to"
            f" {high:.3f})"
        )


if __name__ == "__main__":
    main()
