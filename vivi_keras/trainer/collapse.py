"""A callback that warns of collapsed embeddings."""

import math

import keras
from absl import logging


class WarnOfCollapse(keras.callbacks.Callback):
    """Logs a warning, with the likely cause, when embeddings collapse.

    Checks the mean metrics of each epoch of `fit`. Each sign of collapse is
    reported once per run, when two epochs in a row show it. docs/method.md
    explains the metrics.
    """

    # The spread is at most 1; that of an untrained encoder is at least 0.3.
    LEAST_SPREAD = 0.05  # [O]
    LEAST_RANK = 1.5  # [O]

    def __init__(self):
        super().__init__()
        self.healthy = set()  # (level, sign) pairs absent in some epoch
        self.suspected, self.reported = set(), set()

    def on_epoch_end(self, epoch, logs=None):
        found = {}
        for level in self.model.objective.levels:
            if level.weight > 0:
                figures = {
                    name.removeprefix(f"{level.name}_"): float(value)
                    for name, value in (logs or {}).items()
                    if name.startswith(f"{level.name}_")
                }
                found.update(self._signs(level, figures))
        for sign in found.keys() & self.suspected - self.reported:
            logging.warning(
                "Step %d: level %r may have collapsed: %s",
                self.model.steps_done,
                sign[0],
                found[sign],
            )
            self.reported.add(sign)
        self.suspected = found.keys() - self.reported

    def _signs(self, level, figures):
        """Dict: (level name, sign) -> description and likely cause."""
        spread = figures.get("spread", 1.0)
        rank = figures.get("effective_rank", math.inf)
        accuracy = figures.get("accuracy", 1.0)
        chance = figures.get("chance", 0.0)
        signs = {
            "spread": (
                spread < self.LEAST_SPREAD,
                f"all embeddings are one point (spread {spread:.4f}).",
                "the frames are alike (black, or one still picture)",
            ),
            "rank": (
                spread >= self.LEAST_SPREAD and rank < self.LEAST_RANK,
                f"the embeddings lie on one line (effective_rank {rank:.2f}).",
                "one cue, such as brightness, tells the groups apart: try"
                " stronger colour views or more varied videos",
            ),
            "accuracy": (
                accuracy < chance / 2,
                f"no shot scores above the others (accuracy {accuracy:.3f},"
                f" chance {chance:.3f}): their embeddings are alike.",
                "the frames are alike (black, or one still picture)",
            ),
            "alone": (
                chance > 0.999,
                "no shot is compared with one of another video (chance 1), so"
                " the loss is 0.",
                "each batch holds clips of one video",
            ),
        }
        found = {}
        for name, (seen, what, first_cause) in signs.items():
            sign = level.name, name
            if not seen:
                self.healthy.add(sign)
                continue
            cause = first_cause
            if sign in self.healthy and name != "alone":  # due to training
                rate = self.model.learning_rate
                cause = (
                    f"the learning rate ({rate:.2g}) is too high or its"
                    " warm-up too short"
                )
            found[sign] = f"{what} Likely {cause}."
        return found
