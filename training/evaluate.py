"""vivi-evaluate: scores an exported encoder on labelled images.

Example:
  vivi-evaluate --module=module --tasks=digits,fashion_mnist --output=scores
"""

import pathlib
import sys

from absl import app, flags

from vivi_keras import commands
from vivi_keras.evaluation import settings as settings_lib

_MODULE = flags.DEFINE_string(
    "module",
    None,
    "Folder of a reusable SavedModel, or keras.applications.NAME.",
)
_NAME = flags.DEFINE_string("name", None, "The module's name in tables.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")
_SUITE = flags.DEFINE_enum(
    "suite", settings_lib.OFFLINE, settings_lib.SUITES, "Set of tasks."
)
_SETTINGS = {
    option.name: option
    for option in commands.define_flags(settings_lib.Settings)
}
_BASELINE_MODULES = flags.DEFINE_multi_string(
    "baseline_module", [], "Another module to compare with (repeatable)."
)
_BASELINE_NAMES = flags.DEFINE_multi_string(
    "baseline_name", [], "Name of each --baseline_module in tables, in order."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Work directory of a training run, to plot its losses."
)
_PREPARE = flags.DEFINE_bool(
    "prepare",
    False,
    "Download and check the tasks' data, show its licences, and exit.",
)
_COMPARE = flags.DEFINE_bool(
    "compare",
    False,
    "Compare the results folders given as arguments: DIR, or NAME=DIR,DIR,..."
    " for one encoder trained several times. Writes to --output.",
)
_FLAGS = (
    *(_MODULE, _NAME, _OUTPUT, _SUITE, *_SETTINGS.values(), _WORKDIR),
    *(_BASELINE_MODULES, _BASELINE_NAMES, _PREPARE),
)


def pair_baselines(modules, names):
    """Baseline names -> module paths; the names must match in number."""
    if len(names) != len(modules):
        raise app.UsageError(
            "--baseline_name must be given once for each --baseline_module."
            f" Got: {len(names)} and {len(modules)}"
        )
    if len(set(names)) != len(names):
        raise app.UsageError(
            f"Values of --baseline_name must be different. Got: {names}"
        )
    return dict(zip(names, modules, strict=True))


def main(argv):
    if _COMPARE.value:
        return _compare(argv[1:])
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    if _PREPARE.value:
        return _prepare()
    if not _MODULE.value or not _OUTPUT.value:
        raise app.UsageError("--module and --output must be given.")
    baselines = pair_baselines(_BASELINE_MODULES.value, _BASELINE_NAMES.value)
    settings = {name: option.value for name, option in _SETTINGS.items()}
    if _SUITE.value == settings_lib.VIDEO:
        _refuse("--suite=video", "workdir", "data_dir")
        if _SETTINGS["dataset"].value is None:
            raise app.UsageError("--dataset must be given with --suite=video.")
        settings["data_dir"] = _SETTINGS["dataset"].value
    elif _SUITE.value in settings_lib.ROBUST_SUITES:
        _refuse(f"--suite={_SUITE.value}", "workdir", "dataset")
    settings_lib.for_suite(_SUITE.value, **settings)
    _evaluate(baselines, settings)


def _refuse(mode, *names):
    """Raises UsageError if a flag is given that has no effect in a mode."""
    for option in _FLAGS:
        if option.name in names and option.present:
            raise app.UsageError(f"--{option.name} has no effect with {mode}.")


def _refuse_others(mode, *used):
    _refuse(mode, *({option.name for option in _FLAGS} - {*used}))


def _evaluate(baselines, settings):
    # TensorFlow is imported only after the flags have been checked.
    from vivi_keras.evaluation import evaluate
    from vivi_keras.evaluation.reports import pictures
    from vivi_keras.features.encoder import load_encoder

    has_tasks = _SUITE.value in settings_lib.TASK_SUITES
    if has_tasks:
        pictures.check(_WORKDIR.value, _SETTINGS["dataset"].value)
    results = evaluate.evaluate(
        _MODULE.value,
        _OUTPUT.value,
        suite=_SUITE.value,
        name=_NAME.value,
        baselines=baselines,
        progress=True,
        **settings,
    )
    if has_tasks and (_WORKDIR.value or _SETTINGS["dataset"].value):
        encoder = load_encoder(
            _MODULE.value,
            _NAME.value,
            output=settings["output_name"],
            weights=settings["weights"],
        )
        for file in pictures.draw_all(
            _OUTPUT.value,
            module=encoder,
            workdir=_WORKDIR.value,
            dataset=_SETTINGS["dataset"].value,
            image_size=results["settings"]["image_size"],
        ):
            print(f"drew {file}")
    name = results["encoders"][0]["name"]  # the module, not a baseline
    rows = [row for row in results["rows"] if row["encoder"] == name]
    if all(row["accuracy"] is None for row in rows):
        sys.exit(f"vivi-evaluate: {name} got no score; see the reason above")
    if results["skipped"]:
        sys.exit(
            f"vivi-evaluate: not scored: {', '.join(results['skipped'])}; see"
            " the reason above"
        )


def _prepare():
    if _SUITE.value not in settings_lib.TASK_SUITES:
        raise app.UsageError(
            f"--suite must be one of {', '.join(settings_lib.TASK_SUITES)} with"
            f" --prepare. Got: {_SUITE.value}, whose data is read as published"
        )
    is_vtab = _SUITE.value == settings_lib.VTAB
    folder = "data_dir" if is_vtab else "cache_dir"
    _refuse_others(
        f"--prepare --suite={_SUITE.value}", "prepare", "suite", "tasks", folder
    )
    tasks = settings_lib.for_suite(
        _SUITE.value, tasks=_SETTINGS["tasks"].value
    ).tasks
    if is_vtab:
        from vivi_keras.evaluation import evaluate
        from vivi_keras.evaluation.tasks import vtab_tfds

        names = evaluate.task_names(settings_lib.VTAB, tasks)
        missing = vtab_tfds.prepare(names, _SETTINGS[folder].value)
    else:
        from vivi_keras.evaluation.tasks import offline_tfds

        cache = pathlib.Path(_SETTINGS[folder].value) / "offline"
        missing = offline_tfds.prepare(tasks, cache)
    if missing:
        sys.exit(
            f"vivi-evaluate: {len(missing)} tasks not available:"
            f" {sorted(missing)}"
        )
    print("All tasks are prepared.")


def _compare(folders):
    _refuse_others("--compare", "output")
    if not folders or _OUTPUT.value is None:
        raise app.UsageError(
            "Results folders after --compare, and --output, must be given."
        )
    from vivi_keras.evaluation.reports import comparison_page

    for file in comparison_page.compare(folders, _OUTPUT.value):
        print(f"wrote {file}")


def run():
    """Entry point of the console script."""
    commands.run("vivi-evaluate", main)


if __name__ == "__main__":
    run()
