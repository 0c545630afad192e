"""vivi-evaluate: scores an exported encoder on labelled images.

Example:
  vivi-evaluate --module=module --tasks=digits,fashion_mnist --output=scores
"""

import dataclasses
import pathlib
import sys

from absl import app, flags

from vivi_keras import commands

_SUITES = ["offline", "vtab"]
_ROBUST = ["imagenet_c", "vid_robust", "ytbb_robust", "video"]

_MODULE = flags.DEFINE_string(
    "module",
    None,
    "Folder of a reusable SavedModel, or keras.applications.NAME.",
)
_NAME = flags.DEFINE_string("name", None, "What tables call the module.")
_OUTPUT_NAME = flags.DEFINE_string(
    "output_name", None, "The output to use of a module with several."
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Of a Keras application: imagenet, a file, or none (random).",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")
_SUITE = flags.DEFINE_enum(
    "suite", "offline", [*_SUITES, *_ROBUST], "What to score on."
)
_TASKS = flags.DEFINE_list(
    "tasks",
    None,
    "all, natural, specialized, structured, or names, comma-separated."
    " All of VTAB; offline digits and fashion_mnist if not given.",
)
_PROTOCOLS = flags.DEFINE_list(
    "protocols",
    None,
    "Of knn, linear, few_shot, finetune, corruptions. knn and linear offline,"
    " finetune for VTAB if not given.",
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Draws of training images.", 1)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Pixels a side: 64 offline, else 224 if not given.", 8
)
_MAX_TEST = flags.DEFINE_integer(
    "max_test", None, "Test images a task: 5000 offline if not given.", 1
)
_MAX_CORRUPTED = flags.DEFINE_integer(
    "max_corrupted", 1000, "Test images of corruptions.", 1
)
_LEARNING_RATES = flags.DEFINE_list(
    "learning_rates", None, "Of fine-tuning's sweep."
)
_STEPS = flags.DEFINE_list("steps", None, "Of fine-tuning's sweep.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Of fine-tuning.", 1)
_RUNS = flags.DEFINE_integer("runs", None, "Of fine-tuning, a task.", 1)
_MOMENTUM = flags.DEFINE_float("momentum", None, "Of fine-tuning.", 0.0)
_BUDGET = flags.DEFINE_float(
    "budget_minutes",
    None,
    "Runs the largest protocol whose estimated time fits.",
)
_BASELINE_MODULES = flags.DEFINE_multi_string(
    "baseline_module", [], "Another module to stand beside (repeatable)."
)
_BASELINE_NAMES = flags.DEFINE_multi_string(
    "baseline_name", [], "Its name in tables, in the same order."
)
_RAW_PIXELS = flags.DEFINE_bool(
    "raw_pixels", True, "Whether raw 16x16 pixels stand beside it."
)
_MAPS = flags.DEFINE_list(
    "maps",
    ["pca"],
    "Maps of test images for --compare to draw: pca, umap (needs the extra"
    " maps).",
)
_DEMO_FILMS = flags.DEFINE_string(
    "demo_films", None, "Folder of rendered held-out films, for task demo."
)
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir", ".cache", "Folder for fetched data and kept features."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "TFDS's data folder for VTAB; the published folder of a robustness suite.",
)
_TRAIN_DIR = flags.DEFINE_string(
    "train_dir",
    None,
    "Folder of class folders that the probe of a robustness suite is fitted"
    " on.",
)
_PREPARE = flags.DEFINE_bool(
    "prepare",
    False,
    "Fetches the tasks' data, checks it, shows its licences, and stops.",
)
_COMPARE = flags.DEFINE_bool(
    "compare",
    False,
    "Compares results folders, the arguments: DIR, or NAME=DIR,DIR,... for"
    " one encoder trained several times. Writes to --output.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "A training work directory: draws its loss curves."
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "A prepared data set: draws its shots and, with the module, what it"
    " retrieves. --suite=video scores on it.",
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
    if _COMPARE.value:
        return _compare(argv[1:])
    if len(argv) > 1:
        raise app.UsageError(f"Expected only flags; got {argv[1:]}.")
    if _PREPARE.value:
        return _prepare()
    if not _MODULE.value or not _OUTPUT.value:
        raise app.UsageError("Expected --module and --output.")
    common = {
        "baselines": pair_baselines(
            _BASELINE_MODULES.value, _BASELINE_NAMES.value
        ),
        "name": _NAME.value,
        "image_size": _IMAGE_SIZE.value,
        "raw_pixels": _RAW_PIXELS.value,
        "cache_dir": _CACHE_DIR.value,
        "weights": _WEIGHTS.value,
        "output_name": _OUTPUT_NAME.value,
        "progress": True,
    }
    if _SUITE.value in _ROBUST:
        return _evaluate_robustness(common)
    _evaluate(common)


def _evaluate(common):
    # TensorFlow is imported only after the flags have been checked.
    from vivi_keras.evaluation import evaluate
    from vivi_keras.evaluation.reports import pictures

    pictures.check(_WORKDIR.value, _DATASET.value)
    results = evaluate.evaluate(
        _MODULE.value,
        _OUTPUT.value,
        suite=_SUITE.value,
        tasks=_tasks(),
        protocol_names=_PROTOCOLS.value,
        seeds=range(_SEEDS.value),
        sweep=_sweep(evaluate.SWEEPS[_SUITE.value]),
        budget_minutes=_BUDGET.value,
        demo_films=_DEMO_FILMS.value,
        data_dir=_DATA_DIR.value,
        max_test=_MAX_TEST.value,
        max_corrupted=_MAX_CORRUPTED.value,
        map_kinds=_MAPS.value,
        **common,
    )
    size = _IMAGE_SIZE.value
    for file in pictures.draw_all(
        _OUTPUT.value,
        module=_MODULE.value,
        workdir=_WORKDIR.value,
        dataset=_DATASET.value,
        image_size=evaluate.IMAGE_SIZES[_SUITE.value] if size is None else size,
    ):
        print(f"drew {file}")
    name = results["encoders"][0]["name"]  # the module, not a baseline
    rows = [row for row in results["rows"] if row["encoder"] == name]
    if all(row["accuracy"] is None for row in rows):
        sys.exit(f"vivi-evaluate: {name} got no score; why is said above")


def _evaluate_robustness(common):
    is_video = _SUITE.value == "video"
    data = _DATASET.value if is_video else _DATA_DIR.value
    if data is None:
        raise app.UsageError(
            f"Expected {'--dataset' if is_video else '--data_dir'} with"
            f" --suite={_SUITE.value}."
        )
    if not is_video and _TRAIN_DIR.value is None:
        raise app.UsageError(
            f"Expected --train_dir with --suite={_SUITE.value}."
        )
    tasks = [] if _TASKS.value is None else _TASKS.value
    if len(tasks) > 1 or (tasks and not is_video):
        raise app.UsageError(
            "Expected --tasks of a robustness suite to be at most one offline"
            f" task, with --suite=video; got {tasks}."
        )
    from vivi_keras.evaluation import evaluate

    evaluate.evaluate_robust(
        _MODULE.value,
        _OUTPUT.value,
        suite_name=_SUITE.value,
        data_dir=data,
        train_dir=_TRAIN_DIR.value,
        task=tasks[0] if tasks else None,
        **common,
    )


def _tasks():
    if _TASKS.value is not None:
        return _TASKS.value
    return ["all"] if _SUITE.value == "vtab" else ["digits", "fashion_mnist"]


def _sweep(default):
    """The suite's sweep with the changes given by flags."""
    given = {
        "learning_rates": _numbers(_LEARNING_RATES, float),
        "steps": _numbers(_STEPS, int),
        "batch_size": _BATCH_SIZE.value,
        "runs": _RUNS.value,
        "momentum": _MOMENTUM.value,
    }
    changes = {k: v for k, v in given.items() if v is not None}
    return dataclasses.replace(default, **changes)


def _numbers(flag, kind):
    if flag.value is None:
        return None
    try:
        return tuple(kind(text) for text in flag.value)
    except ValueError as error:
        raise app.UsageError(
            f"Expected --{flag.name} of {kind.__name__}s; got {flag.value}."
        ) from error


def _prepare():
    if _SUITE.value == "vtab":
        from vivi_keras.evaluation import evaluate
        from vivi_keras.evaluation.tasks import vtab_tfds

        names = evaluate.task_names("vtab", _tasks())
        missing = vtab_tfds.prepare(names, _DATA_DIR.value)
    elif _SUITE.value == "offline":
        from vivi_keras.evaluation.tasks import offline_tfds

        cache = pathlib.Path(_CACHE_DIR.value) / "offline"
        missing = offline_tfds.prepare(_tasks(), cache)
    else:
        raise app.UsageError(
            f"Expected --prepare with a suite of {_SUITES}; the data of"
            f" {_SUITE.value} is read as published."
        )
    if missing:
        print(f"{len(missing)} tasks not available: {sorted(missing)}")
    else:
        print("All tasks are prepared.")


def _compare(folders):
    if not folders or _OUTPUT.value is None:
        raise app.UsageError(
            "Expected results folders after --compare, and --output."
        )
    from vivi_keras.evaluation.reports import comparison_page

    for file in comparison_page.compare(folders, _OUTPUT.value):
        print(f"wrote {file}")


def run():
    """Entry point of the console script."""
    commands.run("vivi-evaluate", main)


if __name__ == "__main__":
    run()
