"""Rows of the paper's table that train on images, labelled or not.

At the paper's scale the images are ImageNet from TFDS. Batch sizes and
learning rates are our own [O] unless tagged otherwise.
"""

from vivi_keras.training.configs import base

SUPERVISED = {
    "weight": 1.0,  # gamma  [R]
    "num_classes": 0,  # 0: the data set's number of classes
    "warmup_steps": 0,  # of gamma  [O]
}


def _labels(config, fraction):
    config.data.images.label_fraction = fraction
    config.objective.supervised = dict(SUPERVISED)


def _images_only(config):
    config.data.update(batch_size=0, num_shots=0, frames_per_shot=0)
    config.data.images.batch_size = 256  # [G], S4L
    config.schedule.learning_rate = 0.1  # for 256 images  [G], S4L


def _self_supervised(config, kind):
    if kind == "exemplar":
        config.objective.frame_exemplar = {"weight": 1.0, **base.EXEMPLAR}
        config.data.images.update(views="exemplar", copies=8)  # [G]
    elif kind == "rotation":
        config.objective.rotation = {"weight": 1.0}
        config.data.images.views = "rotation"  # [G]


def images(kind=None, fraction=None, unlabelled=False):
    """A row that trains only on images.

    Args:
        kind: self-supervised loss, "exemplar", "rotation" or None.
        fraction: share of the labels to use, or None for no labels.
        unlabelled: whether to add an equal number of unlabelled images.
    """

    def change(config):
        _images_only(config)
        if fraction is not None:
            _labels(config, fraction)
        _self_supervised(config, kind)
        if unlabelled:
            images = config.data.images
            images.unlabelled_batch_size = images.batch_size  # [G], S4L

    return change


def co_trained(change, fraction):
    """A row that trains on videos and labelled images together."""

    def both(config):
        change(config)
        _labels(config, fraction)
        config.data.images.batch_size = 512  # one image per video  [O]
        config.train.steps = 100_000  # [R]
        config.schedule.boundaries = (70_000, 85_000, 95_000)  # [R]

    return both


def from_scratch(config):
    """A row without training: the baseline that others must beat."""
    _images_only(config)
    config.objective.supervised = {**SUPERVISED, "num_classes": 1000}
    config.train.steps = 0


ROWS = {
    "from_scratch": ("the encoder before any training", from_scratch),
    "exemplar": ("exemplar over copies of an image", images("exemplar")),
    "ex_imagenet": (
        "exemplar, as retrained in the paper",
        images("exemplar"),
    ),
    "rotation": ("rotation of images", images("rotation")),
    "sup_100": ("supervised, all labels", images(fraction=1.0)),
    "sup_10": ("supervised, a tenth of the labels", images(fraction=0.1)),
    "sup_exemplar_100": (
        "supervised + exemplar, all labels",
        images("exemplar", 1.0),
    ),
    "sup_rotation_100": (
        "supervised + rotation, all labels",
        images("rotation", 1.0),
    ),
    "semi_ex_10": (
        "a tenth of the labels + exemplar on all images",
        images("exemplar", 0.1, unlabelled=True),
    ),
    "semi_rotation_10": (
        "a tenth of the labels + rotation on all images",
        images("rotation", 0.1, unlabelled=True),
    ),
}
