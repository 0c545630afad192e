"""The offline tasks as TFDS data sets, one builder config a task."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from vivi_keras.evaluation import offline
from vivi_keras.evaluation.tasks import LabelledImages

NO_GROUP = -1


def _configs():
    return [
        tfds.core.BuilderConfig(name=name, description=source.licence)
        for name, source in offline.SOURCES.items()
    ]


class ViviOffline(tfds.core.GeneratorBasedBuilder):
    """Splits "train" (the pool, in a fixed order) and "test".

    train800 is `train[:800]` and val200 is `train[800:1000]`.
    """

    name = "vivi_offline"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = _configs()

    def __init__(self, *, cache_dir, **arguments):
        self._cache_dir = cache_dir
        super().__init__(**arguments)

    def _info(self):
        source = offline.SOURCES[self.builder_config.name]
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="png"),
                    "label": tfds.features.ClassLabel(
                        names=list(source.class_names)
                    ),
                    "group": np.int64,
                }
            ),
            supervised_keys=("image", "label"),
            license=source.licence,
            # The stored order is the protocol's order.
            disable_shuffling=True,
        )

    def _split_generators(self, manager):
        del manager
        source = offline.SOURCES[self.builder_config.name]
        train, test = offline.read(source, self._cache_dir)
        return {"train": self._examples(train), "test": self._examples(test)}

    def _generate_examples(self, images):
        return self._examples(images)

    def _examples(self, images):
        for place, (image, label) in enumerate(
            zip(images.images, images.labels, strict=True)
        ):
            if image.shape[-1] == 1:
                image = np.repeat(image, 3, axis=-1)
            group = NO_GROUP if images.groups is None else images.groups[place]
            yield (
                place,
                {"image": image, "label": int(label), "group": int(group)},
            )


def builder(name, cache_dir):
    """The builder of one task, whether prepared or not."""
    cache_dir = pathlib.Path(cache_dir)
    return ViviOffline(
        cache_dir=cache_dir, config=name, data_dir=str(cache_dir / "tfds")
    )


def read_split(prepared, split):
    """All images of a prepared split, in stored order."""
    config = tfds.ReadConfig(interleave_cycle_length=1)
    rows = list(
        tfds.as_numpy(
            prepared.as_dataset(
                split=split, read_config=config, shuffle_files=False
            )
        )
    )
    groups = np.array([row["group"] for row in rows], np.int64)
    return LabelledImages(
        np.stack([row["image"] for row in rows]),
        np.array([row["label"] for row in rows], np.int64),
        None if np.all(groups == NO_GROUP) else groups,
    )
