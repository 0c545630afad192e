"""Scores encoders on robustness benchmarks, and on a user's own videos."""

import pathlib

import tqdm

from vivi_keras.evaluation import (
    natural_video,
    offline,
    reports,
    robustness,
    suite,
)
from vivi_keras.evaluation.features import FeatureCache, RawPixels
from vivi_keras.evaluation.modules import load_encoder
from vivi_keras.evaluation.runs import Run

IMAGENET_C, VIDEO = "imagenet_c", "video"
VIDEO_ROBUST, YTBB = "vid_robust", "ytbb_robust"
SUITES = (IMAGENET_C, VIDEO_ROBUST, YTBB, VIDEO)
_SIZES = {VIDEO: 64}  # pixels a side; others at 224


def evaluate(
    module,
    output=None,
    *,
    suite_name,
    data_dir,
    train_dir=None,
    task=None,
    baselines=None,
    name=None,
    image_size=None,
    raw_pixels=True,
    cache_dir=".cache",
    weights=None,
    output_name=None,
    show=print,
    progress=False,
):
    """Scores encoders on one of SUITES.

    Args:
        suite_name: of SUITES.
        data_dir: the benchmark's folder as published, or for "video" a data
            set that `vivi-prepare` wrote.
        train_dir: folder of class folders that a linear probe is fitted on;
            all but "video" need it.
        task: name of an offline task whose classes "video" gives to frames.
        baselines, name, image_size, raw_pixels, cache_dir, weights,
            output_name, show, progress: as in `suite.evaluate`.
    Returns: results as `suite.evaluate`'s; "accuracy" is 1 - mean error,
        pm-k, or the share of near frames that keep their shot.
    Raises: ValueError; Unavailable: the folders hold something else.
    """
    if suite_name not in SUITES:
        raise ValueError(f"Expected a suite of {SUITES}; got {suite_name!r}.")
    if suite_name != VIDEO and train_dir is None:
        raise ValueError(
            f"Suite {suite_name} needs a folder of class folders to fit its"
            " probe on (--train_dir)."
        )
    if output is not None:
        reports.check_output(output)
    encoders = [load_encoder(module, name, output=output_name, weights=weights)]
    for key, path in ({} if baselines is None else baselines).items():
        encoders.append(load_encoder(path, key))
    if raw_pixels:
        encoders.append(RawPixels())
    suite.check_names(encoders)
    if image_size is None:
        image_size = _SIZES.get(suite_name, 224)
    show = show if show is not None else lambda line: None
    settings = {
        "suite": suite_name,
        "image_size": image_size,
        "protocols": [suite_name],
        "data": pathlib.Path(data_dir).name,
    }
    if task is not None:
        folder = pathlib.Path(".cache" if cache_dir is None else cache_dir)
        task = offline.load_task(task, folder / "offline")
    run = Run(encoders, FeatureCache(None), settings, output, show, progress)
    for encoder in tqdm.tqdm(encoders, unit="encoder", disable=not progress):
        if suite_name == VIDEO:
            result = natural_video.run(
                encoder, data_dir, image_size=image_size, task=task
            )
        else:
            probe = robustness.FolderProbe(encoder, train_dir, image_size)
            result = _published(suite_name, probe, data_dir, show)
        run.rows.append(
            {
                "encoder": encoder.name,
                "task": pathlib.Path(data_dir).name,
                "group": "robustness",
                "protocol": suite_name,
                "seed": 0,
                **result,
            }
        )
        details = {
            k: round(v, 4) for k, v in result.items() if isinstance(v, float)
        }
        show(f"{encoder.name}: {details}")
    return run.finish()


def _published(name, probe, data_dir, show):
    if name == IMAGENET_C:
        result = robustness.imagenet_c(probe.predict, data_dir, show)
        errors = [sum(e) / len(e) for e in result["errors"].values()]
        return {"accuracy": 1.0 - sum(errors) / len(errors), **result}
    result = robustness.video_robust(
        probe.predict, data_dir, neighbours_use_anchor_labels=name == YTBB
    )
    return {"accuracy": result["pm_k"], **result}
