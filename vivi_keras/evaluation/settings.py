"""Settings of an evaluation, and which of them each suite uses."""

import dataclasses

from vivi_keras.checks import check_choice, check_range, check_whole

OFFLINE, VTAB = "offline", "vtab"
IMAGENET_C, VIDEO = "imagenet_c", "video"
VIDEO_ROBUST, YTBB = "vid_robust", "ytbb_robust"
TASK_SUITES = (OFFLINE, VTAB)
ROBUST_SUITES = (IMAGENET_C, VIDEO_ROBUST, YTBB, VIDEO)
SUITES = (*TASK_SUITES, *ROBUST_SUITES)

KNN, LINEAR, FEW_SHOT = "knn", "linear", "few_shot"
FINETUNE, CORRUPTIONS = "finetune", "corruptions"
PROTOCOLS = (KNN, LINEAR, FEW_SHOT, FINETUNE, CORRUPTIONS)
HALF_PIXEL, LEGACY = "half_pixel", "legacy"
RESIZES = (HALF_PIXEL, LEGACY)
SWEEP = ("learning_rates", "steps", "batch_size", "runs", "momentum")

DEFAULTS = {
    OFFLINE: {
        "tasks": ("digits", "fashion_mnist"),
        "protocols": (KNN, LINEAR),
        "image_size": 64,  # [O]
        "max_test": 5000,  # [O]
        "maps": ("pca",),
    },
    VTAB: {
        "tasks": ("all",),
        "protocols": (FINETUNE,),
        "image_size": 224,
        "resize": HALF_PIXEL,
        "maps": ("pca",),
    },
    VIDEO: {"image_size": 64},
}
# Setting -> the suites that use it. Settings that are not listed are used by
# all suites.
_SUITES_OF = {
    **dict.fromkeys(
        ("protocols", "seeds", "max_test", "max_corrupted", "budget_minutes")
        + ("maps", *SWEEP),
        TASK_SUITES,
    ),
    "tasks": (*TASK_SUITES, VIDEO),
    "demo_films": (OFFLINE,),
    "dataset": (*TASK_SUITES, VIDEO),
    "resize": (VTAB,),
    "train_dir": (IMAGENET_C, VIDEO_ROBUST, YTBB),
}


_TUPLES = {"tasks": str, "protocols": str, "maps": str}
_TUPLES |= {"learning_rates": float, "steps": int}
_LEAST = {"image_size": 8, "seeds": 1, "max_test": 1, "max_corrupted": 1}
_LEAST |= {"batch_size": 1, "runs": 1}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `evaluate` scores on, and how.

    None stands for the suite's default. A setting that the suite or its
    protocols do not use raises an error.

    Attributes:
        tasks: Names of tasks, or all, natural, specialized, structured.
            Default: digits,fashion_mnist for the offline suite, all for VTAB.
            In the offline suite, mine:labels.csv or mine:FOLDER scores on your
            own labels. The video suite takes one task of the offline suite and
            predicts its classes.
        protocols: One or more of knn, linear, few_shot, finetune, corruptions.
            Default: knn,linear for the offline suite, finetune for VTAB.
        image_size: Pixels per side to which images are resized. Default: 64 for
            the offline and the video suite, else 224.
        resize: How VTAB's images are resized (bilinear, without smoothing):
            half_pixel, as in TF 2, or legacy, as in VTAB's public code on TF 1.
            Default: half_pixel.
        seeds: Number of draws of training images; the first keeps the stored
            order.
        max_test: Maximum number of test images per task. Default: 5000 offline,
            all for VTAB.
        max_corrupted: Maximum number of test images for protocol corruptions.
        learning_rates: Learning rates of the fine-tuning sweep. Default:
            0.1,0.01.
        steps: Numbers of steps of the fine-tuning sweep. Default: 150,600
            offline, 2500,10000 for VTAB.
        batch_size: Batch size for fine-tuning. Default: 64 offline, 512 for
            VTAB.
        runs: Number of fine-tuning runs per task with the chosen setting.
            Default: 1 offline, 3 for VTAB.
        momentum: Momentum for fine-tuning. Default: 0.9.
        budget_minutes: Time limit in minutes. The largest protocol that is
            estimated to fit into it runs.
        raw_pixels: Also score raw 16x16 pixels, as a baseline.
        maps: Maps of test images for --compare to draw: pca, umap (needs
            umap-learn, which vivi-keras's extra "maps" installs). Default: pca.
        dataset: Prepared data set with the videos of mine:labels.csv. Its shots
            and the frames that the module finds nearest are drawn. With
            --suite=video, the data set to score on.
        demo_films: Folder of rendered held-out films, for task demo.
        cache_dir: Folder for downloaded data and computed features.
        data_dir: TFDS's data folder for VTAB; the published folder of a
            robustness suite.
        train_dir: Folder of class folders to fit the probe of a published
            robustness suite on.
        weights: For keras.applications.NAME: imagenet, a file, or none
            (random).
        output_name: Which output to use, if the module has several.
    """

    tasks: tuple | None = None
    protocols: tuple | None = None
    image_size: int | None = None
    resize: str | None = None
    seeds: int = 1
    max_test: int | None = None
    max_corrupted: int = 1000
    learning_rates: tuple | None = None
    steps: tuple | None = None
    batch_size: int | None = None
    runs: int | None = None
    momentum: float | None = None
    budget_minutes: float | None = None
    raw_pixels: bool = True
    maps: tuple | None = None
    dataset: str | None = None
    demo_films: str | None = None
    cache_dir: str | None = ".cache"
    data_dir: str | None = None
    train_dir: str | None = None
    weights: str | None = None
    output_name: str | None = None

    def __post_init__(self):
        for name, convert in _TUPLES.items():
            value = getattr(self, name)
            try:
                found = None if value is None else tuple(map(convert, value))
            except ValueError:
                raise ValueError(
                    f"{name} must be numbers. Got: {value}"
                ) from None
            object.__setattr__(self, name, found)
        for name, least in _LEAST.items():
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least, 1_000_000_000)
        if self.momentum is not None:
            check_range("momentum", self.momentum, 0, 1)
        if self.resize is not None:
            check_choice("resize", self.resize, RESIZES)
        found = PROTOCOLS if self.protocols is None else self.protocols
        if not found or {*found} - {*PROTOCOLS} or len({*found}) < len(found):
            raise ValueError(
                f"protocols must be of {', '.join(PROTOCOLS)}, each once. Got:"
                f" {', '.join(found) or 'none'}"
            )

    @property
    def sweep(self):
        """The given settings of the fine-tuning sweep, as a dict."""
        found = {name: getattr(self, name) for name in SWEEP}
        return {k: v for k, v in found.items() if v is not None}


def for_suite(suite, **given):
    """The settings of a suite: those given, its defaults for the rest.

    Raises: ValueError: an unknown suite, a value out of range, a setting that
        has no effect, or one that is missing.
    """
    check_choice("suite", suite, SUITES)
    settings = Settings(**given)
    defaults = DEFAULTS.get(suite, {"image_size": 224})
    settings = dataclasses.replace(
        settings,
        **{k: v for k, v in defaults.items() if getattr(settings, k) is None},
    )
    for name, why in _without_effect(suite, settings).items():
        default = defaults.get(name, getattr(Settings, name))
        if getattr(settings, name) != default:
            raise ValueError(
                f"{name} has no effect with {why}. Got:"
                f" {name}={getattr(settings, name)!r}"
            )
    needed = () if suite in TASK_SUITES else ("data_dir", "train_dir")
    for name in needed[:1] if suite == VIDEO else needed:
        if getattr(settings, name) is None:
            raise ValueError(f"Suite {suite} needs {name}.")
    if suite == VIDEO and len(settings.tasks or ()) > 1:
        raise ValueError(
            f"tasks of suite video must be one task. Got: {settings.tasks}"
        )
    return settings


def _without_effect(suite, settings):
    """Setting -> the suite or setting with which it has no effect."""
    found = {
        name: f"suite {suite}"
        for name, suites in _SUITES_OF.items()
        if suite not in suites
    }
    if suite not in TASK_SUITES:
        return found
    if settings.budget_minutes is not None:
        chosen = ("protocols", *SWEEP)
        found |= dict.fromkeys(chosen, "budget_minutes, which chooses it")
        return found
    protocols = {*settings.protocols}
    mode = f"protocols {','.join(settings.protocols)}"
    if FINETUNE not in protocols:
        found |= dict.fromkeys(SWEEP, mode)
    if CORRUPTIONS not in protocols:
        found["max_corrupted"] = mode
    # VTAB fixes its 1,000 training images.
    drawn = {FEW_SHOT} if suite == VTAB else {KNN, LINEAR, FEW_SHOT}
    if not drawn & protocols:
        found["seeds"] = f"suite {suite} and {mode}"
    return found
