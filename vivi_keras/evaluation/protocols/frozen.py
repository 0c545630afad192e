"""Protocols that score frozen features: kNN, linear probe, few-shot."""

import numpy as np

from vivi_keras.evaluation.settings import FEW_SHOT, KNN, LINEAR
from vivi_keras.features import knn, linear

FROZEN = (KNN, LINEAR, FEW_SHOT)
SHOTS = (1, 5, 10, 100)
NUM_DRAWS = 5


def run_knn(
    train,
    train_labels,
    test,
    test_labels,
    num_classes,
    *,
    num_neighbours=knn.NUM_NEIGHBOURS,
    temperature=knn.TEMPERATURE,
):
    """Accuracy in [0, 1] of a weighted cosine kNN, with its settings."""
    predictions = knn.predict(
        test, train, train_labels, num_classes, num_neighbours, temperature
    )
    return {
        "accuracy": float(np.mean(predictions == test_labels)),
        "num_neighbours": num_neighbours,
        "temperature": temperature,
        "num_train": len(train),
    }


def run_linear(
    features,
    labels,
    train,
    validation,
    test,
    test_labels,
    strengths=linear.STRENGTHS,
):
    """Accuracy of a linear probe; validation images choose its strength.

    Args:
        features: float [N, D], the pool. labels: int [N].
        train, validation: int arrays, indices into the pool.
        test: float [M, D]. test_labels: int [M].
    """
    probe, chosen_from = linear.fit_chosen(
        features[train],
        labels[train],
        features[validation],
        labels[validation],
        strengths,
    )
    return {
        "accuracy": probe.accuracy(test, test_labels),
        "strength": probe.strength,
        "validation": {str(k): v for k, v in chosen_from.items()},
        "num_train": len(train) + len(validation),
    }


def run_few_shot(
    features,
    labels,
    test,
    test_labels,
    num_classes,
    *,
    shots=SHOTS,
    num_draws=NUM_DRAWS,
    seed=0,
    strength=1.0,
):
    """Accuracy of a probe on a few labels per class, over several draws.

    With one label per class there is no validation part, so the strength is
    fixed [O]. A class with too few images uses all of them.

    Returns: dict labels per class (as a string) -> dict: "accuracy" (mean
        over draws; None if no draw had two classes), "spread" (its standard
        deviation over draws), "draws" (accuracy of each), "num_train" and
        "skipped" (number of draws without two classes).
    """
    results = {}
    for count in shots:
        accuracies, sizes, skipped = [], [], 0
        for draw in range(num_draws):
            chosen = draw_per_class(labels, num_classes, count, (seed, draw))
            if len(np.unique(labels[chosen])) < 2:
                skipped += 1  # a probe needs two classes
                continue
            probe = linear.fit(features[chosen], labels[chosen], strength)
            accuracies.append(probe.accuracy(test, test_labels))
            sizes.append(len(chosen))
        results[str(count)] = {
            "accuracy": float(np.mean(accuracies)) if accuracies else None,
            "spread": float(np.std(accuracies, ddof=1))
            if len(accuracies) > 1
            else None,
            "draws": accuracies,
            "num_train": int(np.max(sizes)) if sizes else 0,
            "skipped": skipped,
        }
    return results


def draw_per_class(labels, num_classes, count, seed):
    """Indices of `count` images per class (all if it has fewer)."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in range(num_classes):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(rows[:count])
    return np.concatenate(chosen)


def run_frozen(
    names, task, pool, pool_labels, test, test_labels, seed=0, **settings
):
    """Runs protocols by name on the features of one task.

    Args:
        names: from FROZEN. task: has `num_classes` and `split`.
        pool: float [N, D], features of the training part, in stored order.
        seed: int, selects the draw of the pool (see `task.ImageTask.split`).
        settings: "num_train", "num_validation", "shots", "num_draws".
    Returns: dict protocol name -> result.
    """
    sizes = {
        k: settings[k] for k in ("num_train", "num_validation") if k in settings
    }
    train, validation = task.split(seed, **sizes)
    both = np.concatenate([train, validation])
    results = {}
    for name in names:
        if name == "knn":
            results[name] = run_knn(
                pool[both],
                pool_labels[both],
                test,
                test_labels,
                task.num_classes,
            )
        elif name == "linear":
            results[name] = run_linear(
                pool, pool_labels, train, validation, test, test_labels
            )
        elif name == "few_shot":
            draws = {
                k: settings[k] for k in ("shots", "num_draws") if k in settings
            }
            results[name] = run_few_shot(
                pool,
                pool_labels,
                test,
                test_labels,
                task.num_classes,
                seed=seed,
                **draws,
            )
        else:
            raise ValueError(
                f"A protocol must be one of {', '.join(FROZEN)}. Got: {name!r}"
            )
    return results
