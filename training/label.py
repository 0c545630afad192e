"""vivi-label: fits a classifier to a few labels, and classifies every shot.

Examples:
  vivi-label --suggest=50 --index=index --output=labels.csv
  vivi-label --fit --index=index --labels=labels.csv --output=classifier
  vivi-label --fit --finetune --index=index --labels=labels.csv --output=tuned
  vivi-label --apply --index=index --module=classifier --output=classes
"""

from absl import app, flags

from vivi_keras import commands

_SUGGEST = flags.DEFINE_integer(
    "suggest", None, "Number of shots to suggest for labelling.", 1
)
_FIT = flags.DEFINE_bool(
    "fit", False, "Fit a classifier on labels and export it."
)
_FINETUNE = flags.DEFINE_bool(
    "finetune",
    False,
    "With --fit: also train the encoder, and use the trained one if it is more"
    " accurate on held-out videos. Such a classifier needs an index of its"
    " own.",
)
_APPLY = flags.DEFINE_bool(
    "apply", False, "Write a class for every shot, as CSV and timeline."
)
_INDEX = flags.DEFINE_string("index", None, "Folder that vivi-embed wrote.")
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "CSV with the columns path, start_seconds, stop_seconds, label. --suggest"
    " leaves out shots that have labels.",
)
_MODULE = flags.DEFINE_string(
    "module",
    None,
    "Classifier for --apply; --suggest prefers shots that it is unsure of."
    " With --fit: the encoder of the index, if it moved.",
)
_OUTPUT = flags.DEFINE_string("output", None, "File or folder to write.")
_VIDEOS = flags.DEFINE_string(
    "videos", None, "Folder of the video files, if they moved."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of random choices.")


def main(argv):
    """Does what one of --suggest, --fit and --apply says."""
    if len(argv) > 1:
        raise app.UsageError(f"Arguments must be flags alone. Got: {argv[1:]}")
    if (_SUGGEST.value is not None) + _FIT.value + _APPLY.value != 1:
        raise app.UsageError(
            "One of --suggest, --fit and --apply must be given."
        )
    if _FINETUNE.value and not _FIT.value:
        raise app.UsageError("--finetune must be given with --fit only.")
    needed = [_INDEX, _OUTPUT]
    needed += [_LABELS] if _FIT.value else []
    needed += [_MODULE] if _APPLY.value else []
    for flag in needed:
        if not flag.value:
            raise app.UsageError(f"--{flag.name} must be given.")
    from vivi_keras import archive

    index = archive.open_index(_INDEX.value)
    if _FIT.value:
        _fit(index)
    elif _APPLY.value:
        _apply(index)
    else:
        _suggest(index)


def _suggest(index):
    from vivi_keras.archive import choose, classify, label_pages
    from vivi_keras.data import range_labels

    known, margins = (), None
    if _LABELS.value:
        known = range_labels.join(index.footage, _LABELS.value).shot_rows
    if _MODULE.value:
        head = classify.read_head(index, _MODULE.value)
        margins = classify.margins(classify.predict(index, head)[1])
    rows = choose.suggest(index, _SUGGEST.value, known, margins, _SEED.value)
    sheet = label_pages.write_suggestions(
        _OUTPUT.value, index, rows, _VIDEOS.value
    )
    print(f"wrote {len(rows)} shots to {_OUTPUT.value}, shown in {sheet}")
    if len(rows) < _SUGGEST.value:
        print("there are no more shots that differ enough from these")


def _fit(index):
    from vivi_keras.archive import classify, search
    from vivi_keras.data import range_labels
    from vivi_keras.export import classifier

    encoder = search.open_encoder(index, _MODULE.value)
    labelled = range_labels.join(index.footage, _LABELS.value)
    fitted = classify.fit(index, labelled, _SEED.value)
    if _FINETUNE.value:
        fitted = classify.finetune(
            index, labelled, fitted, encoder, _SEED.value
        )
    print("\n".join(classify.report(fitted, labelled)))
    confusion = fitted.confusion
    classifier.export_classifier(
        encoder.path,
        _OUTPUT.value,
        fitted.head.kernel,
        fitted.head.bias,
        fitted.head.class_names,
        metadata={
            "image_size": index.manifest["image_size"],
            "labels": {
                "rows": labelled.num_rows,
                "shots": len(labelled.labels),
                "strength": fitted.strength,
                "accuracy": fitted.accuracy,
                "confusion": None if confusion is None else confusion.tolist(),
                "notes": list(fitted.notes),
            },
        },
        variables=fitted.variables,
    )
    print(f"wrote {_OUTPUT.value}")
    if fitted.variables is not None:
        print(
            "before --apply, embed the archive with this classifier: vivi-embed"
            f" --module={_OUTPUT.value}"
        )


def _apply(index):
    from vivi_keras.archive import classify, label_pages

    head = classify.read_head(index, _MODULE.value)
    counts = label_pages.write_predictions(
        _OUTPUT.value, index, head, _VIDEOS.value
    )
    for name, count in counts.items():
        print(f"{name}: {count} shots")
    print(f"wrote predictions.csv and timeline.html to {_OUTPUT.value}")


def run():
    """Entry point of the console script."""
    commands.run("vivi-label", main)


if __name__ == "__main__":
    run()
