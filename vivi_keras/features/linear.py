"""A linear probe: multinomial logistic regression on frozen features."""

import warnings

import numpy as np
import threadpoolctl
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from vivi_keras.features import CannotScore

# scikit-learn's C, the inverse of the L2 strength [O].
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_ITERATIONS = 300
# How far the bias of a class without training rows lies below the others.
_UNSEEN = 10.0


class Scaler:
    """Shifts and scales each feature by its training mean and deviation."""

    def __init__(self, features):
        features = np.asarray(features, np.float64)
        self.mean = features.mean(axis=0)
        deviation = features.std(axis=0)
        # A feature that is constant up to float32 rounding has no
        # information: set it to zero.
        largest = np.abs(features).max(axis=0)
        varies = deviation > 1e-6 * largest
        self.scale = np.where(varies, 1.0 / np.where(varies, deviation, 1), 0)

    def __call__(self, features):
        return (np.asarray(features, np.float64) - self.mean) * self.scale


class LinearProbe:
    """A fitted probe; `strength` is its C."""

    def __init__(self, scaler, model, strength):
        self._scaler, self._model = scaler, model
        self.strength = strength

    def predict(self, features):
        """Classes int64 [N] of features float [N, D]."""
        with threadpoolctl.threadpool_limits(1):
            return self._model.predict(self._scaler(features))

    def head(self, num_classes):
        """The same classifier as `linear_map`."""
        return linear_map(self._scaler, self._model, num_classes)

    def accuracy(self, features, labels):
        """Top-1 accuracy in [0, 1]."""
        return float(np.mean(self.predict(features) == np.asarray(labels)))


def fit(features, labels, strength=1.0):
    """Fits one probe with a given strength.

    Args:
        features: float [N, D]. labels: int [N], at least two classes.
        strength: float, scikit-learn's C.
    Raises: CannotScore: all labels are of one class.
    """
    _check_classes(labels)
    scaler = Scaler(features)
    model = _fit(scaler(features), labels, strength)
    return LinearProbe(scaler, model, strength)


def fit_chosen(
    train,
    train_labels,
    validation,
    validation_labels,
    strengths=STRENGTHS,
    fit_both=True,
    score=accuracy_score,
):
    """Chooses the strength on a validation part, then fits once more.

    Args:
        train, validation: float [N, D]. train_labels, validation_labels: int
            [N].
        strengths: floats, of which the best one is chosen.
        fit_both: whether the last fit uses both parts, or `train` alone.
        score: callable (labels, predicted labels) -> number, higher is better.
    Returns: (LinearProbe, validation score by strength as a dict).
    """
    _check_classes(train_labels)
    scaler = Scaler(train)
    values = scaler(train)
    model, scores = None, {}
    for strength in sorted(strengths):  # each starts from the previous fit
        model = _fit(values, train_labels, strength, model)
        probe = LinearProbe(scaler, model, strength)
        predicted = probe.predict(validation)
        scores[strength] = float(score(validation_labels, predicted))
    # If scores are equal, the strongest penalty wins.
    best = max(sorted(strengths), key=lambda s: scores[s])
    if fit_both:
        train = np.concatenate([train, validation])
        train_labels = np.concatenate([train_labels, validation_labels])
    return fit(train, train_labels, best), scores


def linear_map(scaler, model, num_classes):
    """A scaler and a logistic regression as one linear map of features.

    Args:
        scaler: Scaler. model: a LogisticRegression, fitted on what it scaled.
        num_classes: int; classes without training rows get a low bias.
    Returns: (kernel float32 [D, num_classes], bias float32 [num_classes]).
    """
    kernel, bias = model.coef_.T, model.intercept_
    classes = model.classes_
    if len(classes) == 2:  # scikit-learn gives the second class alone
        kernel = np.concatenate([-kernel / 2, kernel / 2], axis=1)
        bias = np.concatenate([-bias / 2, bias / 2])
    if len(classes) < num_classes:
        full = np.zeros((len(kernel), num_classes))
        low = np.full(num_classes, bias.min() - _UNSEEN)
        full[:, classes], low[classes] = kernel, bias
        kernel, bias = full, low
    kernel = scaler.scale[:, None] * kernel
    bias = bias - scaler.mean @ kernel
    return kernel.astype(np.float32), bias.astype(np.float32)


def _fit(values, labels, strength, model=None):
    if model is None:
        model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    model.set_params(C=strength)
    # On such small matrices more threads are slower, many times on a busy
    # machine.
    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(values, labels)


def _check_classes(labels):
    if len(np.unique(labels)) < 2:
        raise CannotScore(
            "labels must be of at least two classes. Got: only"
            f" {np.unique(labels).tolist()}"
        )
