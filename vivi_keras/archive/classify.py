"""Fits a linear head on labelled shots, and classifies all shots with it."""

import collections
import dataclasses
import pathlib
import warnings

import numpy as np
import threadpoolctl
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from vivi_keras import files
from vivi_keras.archive import pictures as pictures_lib
from vivi_keras.features import encoder as encoder_lib
from vivi_keras.features import linear

MOST_FOLDS = 5
MAX_ITERATIONS = 500
# A class with fewer labelled shots gets a note. [O]
FEW_SHOTS = 10
# Fine-tuning: passes over the labelled frames, and the first learning rate. [O]
EPOCHS = 10
LEARNING_RATE = 1e-3
BATCH_SIZE = 32
# At most this many frames of each labelled shot, and of all shots together, so
# that they fit into memory; each shot keeps at least one. [O]
FRAMES_PER_SHOT = 4
MOST_FRAMES = 2000
_METADATA = "assets.extra/vivi.json"


@dataclasses.dataclass(frozen=True)
class Head:
    """A linear head on an encoder's features.

    Attributes:
        kernel: float32 [D, K]. bias: float32 [K].
        class_names: K names.
    """

    kernel: np.ndarray
    bias: np.ndarray
    class_names: tuple

    def logits(self, vectors):
        """float [N, D] -> float32 [N, K]. The logits of a mean of frames are
        the mean of the frames' logits."""
        return np.asarray(vectors, np.float32) @ self.kernel + self.bias


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted head and how well it does on videos that it did not see.

    Attributes:
        head: Head.
        strength: scikit-learn's C.
        accuracy: share of labelled shots classified correctly, each by a head
            fitted without its video; None if it cannot be measured.
        confusion: int64 [K, K], true class by predicted class, or None.
        notes: what a user should know, such as too few labels.
        variables: the encoder's variables as arrays if it was fine-tuned, else
            None.
    """

    head: Head
    strength: float
    accuracy: float | None
    confusion: np.ndarray | None
    notes: tuple
    variables: list | None = None


def fit(index, labelled, seed=0):
    """Fits a head on the frames of labelled shots.

    Each labelled shot weighs the same. C, the inverse strength of the L2
    penalty, is chosen by cross-validation over videos; accuracy is measured
    on videos that took no part in fitting or choosing.

    Args:
        index: `index.Index`.
        labelled: `range_labels.LabelledShots`.
        seed: int, for the division of videos into folds.
    Returns: Fit.
    Raises: ValueError: there are fewer than two classes.
    """
    names = labelled.class_names
    if len(names) < 2:
        raise ValueError(
            "labels must be of at least two classes. Got: only"
            f" {', '.join(names)}"
        )
    data = _Data(index, labelled)
    everything = np.arange(len(labelled.labels))
    folds = _folds(data, everything, seed)
    accuracy = confusion = None
    if folds:
        confusion = np.zeros((len(names), len(names)), np.int64)
        for train, test in folds:
            strength = _choose(data, train, seed)
            predicted = data.fit(train, strength).predict(data, test)
            np.add.at(confusion, (data.labels[test], predicted), 1)
        accuracy = float(np.trace(confusion) / confusion.sum())
    strength = _choose(data, everything, seed)
    model = data.fit(everything, strength)
    notes = _notes(data, names, accuracy, bool(folds))
    return Fit(model.head(names), strength, accuracy, confusion, tuple(notes))


def finetune(
    index,
    labelled,
    fitted,
    encoder,
    seed=0,
    epochs=EPOCHS,
    learning_rate=LEARNING_RATE,
):
    """Fine-tunes encoder and head, if that is better on held-out videos.

    Training starts from the head fitted on frozen features, since a random head
    would distort the encoder's features (arXiv 2202.10054). Accuracy is
    measured as in `fit`, with the same folds of videos: for each fold, encoder
    and head are trained on the others.

    Args:
        index, labelled, seed: as in `fit`.
        fitted: the Fit that `fit` returned for these.
        encoder: the index's `features.encoder.Encoder`; its weights are
            restored afterwards.
        epochs: passes over the labelled frames.
        learning_rate: of SGD with momentum 0.9; it is divided by 10 after 30,
            60 and 90 % of the steps.
    Returns: a fine-tuned Fit if its accuracy is higher, else `fitted`. A note
        gives the two accuracies, or says why they cannot be measured.
    Raises: ValueError: the embedded frames cannot be read. Untrainable (a
        ValueError): the module cannot be trained. FloatingPointError: the loss
        is not finite.
    """
    from vivi_keras.features import finetune as finetune_lib

    names = labelled.class_names
    data = _Data(index, labelled)
    everything = np.arange(len(labelled.labels))
    folds = _folds(data, everything, seed)
    if not folds:
        note = "not fine-tuned: no held-out video can tell whether it helps"
        return dataclasses.replace(fitted, notes=(*fitted.notes, note))
    tuner = finetune_lib.FineTuner(encoder, freeze_statistics=True)
    images, owner = _labelled_images(index, labelled)

    def train(shots, strength):
        """Trains on some labelled shots."""
        rows = np.flatnonzero(np.isin(owner, shots))
        batch_size = min(BATCH_SIZE, len(rows))
        steps = max(1, round(epochs * len(rows) / batch_size))
        head = data.fit(shots, strength).head(names)
        # The number of all classes: some may be in the test videos only.
        tuner.train(
            images[rows],
            data.labels[owner[rows]],
            len(names),
            finetune_lib.Sweep((learning_rate,), (steps,), batch_size),
            (learning_rate, steps),
            seed,
            start=(head.kernel, head.bias),
        )

    try:
        confusion = np.zeros((len(names), len(names)), np.int64)
        for some, test in folds:
            train(some, _choose(data, some, seed))
            _, kernel, bias = tuner.weights()
            for shot in test:
                values = encoder.features(images[owner == shot])
                answer = (values @ kernel + bias).mean(axis=0).argmax()
                confusion[data.labels[shot], answer] += 1
        accuracy = float(np.trace(confusion) / confusion.sum())
        told = (
            f"on held-out videos {100 * accuracy:.1f} % fine-tuned and"
            f" {100 * fitted.accuracy:.1f} % with the encoder as it was"
        )
        if accuracy <= fitted.accuracy:
            note = f"not fine-tuned: {told}"
            return dataclasses.replace(fitted, notes=(*fitted.notes, note))
        train(everything, fitted.strength)
        variables, kernel, bias = tuner.weights()
    finally:
        tuner.restore()
    notes = _notes(data, names, accuracy, True)
    return Fit(
        Head(kernel, bias, names),
        fitted.strength,
        accuracy,
        confusion,
        (*notes, f"fine-tuned: {told}"),
        variables,
    )


def _labelled_images(index, labelled):
    """Some frames of labelled shots at the index's image size.

    Returns: float32 [N, H, W, 3] in [0, 1], and int64 [N], the place of each in
        `labelled.labels`.
    """
    pictures = pictures_lib.Pictures(index)
    most = MOST_FRAMES // len(labelled.labels)
    most = min(max(most, 1), FRAMES_PER_SHOT)
    images, owner = [], []
    for shot, rows in enumerate(labelled.frame_rows):
        # Evenly spread over the range, half a step from its ends.
        count = min(most, len(rows))
        for place in (np.arange(count) + 0.5) * len(rows) / count:
            image = pictures.image(int(rows[int(place)]))
            if image is None:
                why = pictures.missing or "an image cannot be read"
                raise ValueError(
                    f"The frames of {index.folder} must be where vivi-embed"
                    f" read them, since training reads them again. Got: {why}"
                )
            images.append(
                encoder_lib.resize_images(
                    image[None, ..., ::-1], index.manifest["image_size"]
                )[0]
            )
            owner.append(shot)
    return np.stack(images), np.array(owner)


class _Data:
    """Frames of labelled shots: features, owners, labels, videos."""

    def __init__(self, index, labelled):
        counts = [len(rows) for rows in labelled.frame_rows]
        rows = np.concatenate(labelled.frame_rows)
        self.features = index.vectors[rows].astype(np.float32)
        self.owner = np.repeat(np.arange(len(counts)), counts)  # [frames]
        self.weights = 1.0 / np.repeat(counts, counts)
        self.labels, self.groups = labelled.labels, labelled.groups
        self.means = np.stack(
            [
                index.vectors[r].mean(axis=0, dtype=np.float64)
                for r in labelled.frame_rows
            ]
        )

    def fit(self, shots, strength):
        """A head on the frames of some labelled shots."""
        rows = np.flatnonzero(np.isin(self.owner, shots))
        scaler = linear.Scaler(self.features[rows])
        model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
        weights = self.weights[rows]
        with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(
                scaler(self.features[rows]),
                self.labels[self.owner[rows]],
                sample_weight=weights / weights.mean(),
            )
        return _Model(scaler, model)


class _Model:
    """A scaler, and a logistic regression on scaled features."""

    def __init__(self, scaler, model):
        self._scaler, self._model = scaler, model

    def predict(self, data, shots):
        """Classes int64 of labelled shots, from the means of their frames."""
        return self._model.predict(self._scaler(data.means[shots]))

    def head(self, class_names):
        """The scaler and the regression as one linear map of features."""
        kernel, bias = linear.linear_map(
            self._scaler, self._model, len(class_names)
        )
        return Head(kernel, bias, class_names)


def _folds(data, shots, seed):
    """Pairs (train, test) of labelled shots; no video is in both.

    A fold whose training part has one class only is left out.
    """
    groups, labels = data.groups[shots], data.labels[shots]
    # scikit-learn allows as many folds as the largest class has shots.
    count = min(
        MOST_FOLDS, len(np.unique(groups)), int(np.bincount(labels).max())
    )
    if count < 2:
        return []
    split = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes with few shots
        pairs = [*split.split(shots, labels, groups)]
    return [
        (shots[train], shots[test])
        for train, test in pairs
        if len(test) and len(np.unique(labels[train])) > 1
    ]


def _choose(data, shots, seed):
    """The C with the best accuracy on videos that were held out."""
    folds = _folds(data, shots, seed)
    if not folds:
        return 1.0
    right = {
        strength: sum(
            np.sum(data.fit(a, strength).predict(data, b) == data.labels[b])
            for a, b in folds
        )
        for strength in linear.STRENGTHS
    }
    # If several are equal, the strongest penalty wins.
    return max(sorted(right), key=lambda strength: right[strength])


def _notes(data, names, accuracy, tested):
    """Sentences on what is missing."""
    notes = []
    counts = np.bincount(data.labels, minlength=len(names))
    few = [n for n, c in zip(names, counts, strict=True) if c < FEW_SHOTS]
    if few:
        notes.append(
            f"too few labels: {', '.join(few)} (fewer than {FEW_SHOTS}"
            " labelled shots each); label more (vivi-label --suggest)"
        )
    videos = collections.defaultdict(set)
    for label, group in zip(data.labels, data.groups, strict=True):
        videos[int(label)].add(int(group))
    alone = [n for i, n in enumerate(names) if len(videos[i]) == 1]
    if alone:
        notes.append(
            f"{', '.join(alone)} is labelled in one video only, so its accuracy"
            " on others is unknown; label it in more videos"
        )
    if not tested:
        notes.append(
            "accuracy cannot be measured: label shots of each class in at"
            " least two videos"
        )
    elif accuracy <= counts.max() / counts.sum():
        notes.append(
            f"too few labels: always saying {names[int(counts.argmax())]}"
            " would be right as often"
        )
    return notes


def report(fitted, labelled):
    """Lines for the terminal: accuracy and the confusion matrix."""
    names = labelled.class_names
    counts = np.bincount(labelled.labels, minlength=len(names))
    lines = [
        f"{labelled.num_rows} labels, {len(labelled.labels)} labelled shots of"
        f" {len(np.unique(labelled.groups))} videos; C {fitted.strength:g}"
    ]
    if labelled.num_empty:
        lines.append(f"{labelled.num_empty} rows have no label yet")
    if fitted.accuracy is not None:
        right, total = np.trace(fitted.confusion), fitted.confusion.sum()
        lines.append(
            f"on videos held out: {right} of {total} shots right,"
            f" {100 * fitted.accuracy:.1f} % (the most frequent class alone:"
            f" {100 * counts.max() / counts.sum():.1f} %)"
        )
        lines += _confusion(names, fitted.confusion)
    return lines + [f"note: {note}" for note in fitted.notes]


def _confusion(names, confusion):
    """Lines of a table; if names are long, numbers head the columns."""
    columns = names
    if max(map(len, names)) > 10:
        columns = [str(number) for number in range(1, len(names) + 1)]
        names = [f"{n} {name}" for n, name in zip(columns, names, strict=True)]
    first, each = max(map(len, (*names, "true, pred."))), max(map(len, columns))
    each = max(each, 4)
    lines = [[f"{'true, pred.':{first}}", *(f"{c:>{each}}" for c in columns)]]
    lines += [
        [f"{name:{first}}", *(f"{count:>{each}}" for count in row)]
        for name, row in zip(names, confusion, strict=True)
    ]
    return [" ".join(line) for line in lines]


def read_head(index, module):
    """The head of an exported classifier, for the features of an index.

    Args:
        index: `index.Index`.
        module: folder that `vivi-label --fit` or `vivi-export` wrote.
    Returns: Head.
    Raises: ValueError: the module has no head, or not the index's encoder.
    """
    import tensorflow as tf

    folder = pathlib.Path(module)
    if not (folder / "saved_model.pb").is_file():
        raise ValueError(
            "module must be a classifier that vivi-label --fit wrote. Got:"
            f" {module}, which is no SavedModel"
        )
    metadata = files.read_json(folder / _METADATA) or {}
    with encoder_lib.add_name_to_errors(str(module), "be loaded"):
        loaded = tf.saved_model.load(str(module))
    variables = list(getattr(loaded, "classifier_variables", []))
    names = metadata.get("class_names")
    if names is None or [len(v.shape) for v in variables] != [2, 1]:
        raise ValueError(
            f"module must have a linear head and class names. Got: {module},"
            " which lacks them"
        )
    digest = metadata.get("encoder_sha256", encoder_lib.module_digest(folder))
    own = index.manifest["module"]
    if digest != own["sha256"]:
        tuned = "encoder_sha256" not in metadata
        raise ValueError(
            "module must have the encoder of the index. Got: an index of"
            f" {own['path']} with hash {own['sha256']}, and {module} with the"
            f" encoder of hash {digest}"
            + (
                ". A fine-tuned classifier needs an index of its own: run"
                f" vivi-embed --module={module}"
                if tuned
                else ""
            )
        )
    kernel, bias = (variable.numpy() for variable in variables)
    return Head(kernel, bias, tuple(names))


def predict(index, head):
    """A class for each shot of an index.

    Returns: (classes int64 [S], probabilities float64 [S, K]), from the mean
        of a shot's frames.
    """
    logits = head.logits(index.shot_vectors).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    shares = np.exp(logits)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares.argmax(axis=1), shares


def margins(shares):
    """How far the likeliest class leads the next: float64 [S] in [0, 1]."""
    ordered = np.sort(shares, axis=1)
    return ordered[:, -1] - ordered[:, -2]
