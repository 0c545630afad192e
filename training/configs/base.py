"""The base config at paper and at demo scale."""

import ml_collections


def paper_config() -> ml_collections.ConfigDict:
    """The common settings of all rows at the paper's scale."""
    return ml_collections.ConfigDict(
        {
            "name": "",
            "seed": 0,
            "data": {
                "dataset": "",  # folder written by vivi-prepare
                "num_shots": 4,
                "frames_per_shot": 2,  # [O]
                "copies": 1,  # views of each frame
                # Time between frames of a shot; max 0: spread over the shot.
                "min_gap_seconds": 0.0,
                "max_gap_seconds": 0.0,
                "image_size": 224,  # [R]
                "crop_area": (0.05, 1.0),  # share of a frame  [G]
                # An index with a list of near duplicates, which are then not
                # used as negatives of each other (vivi-embed --duplicates).
                "duplicates": "",
                "batch_size": 512,  # videos  [R]
                "views": "exemplar",
                "colour_strength": 1.0,  # of the views; 0: no change
                "grey": 0.0,  # probability that a view is then made grey
                "blur": 0.0,  # and that it is blurred
                "images": {
                    # A folder of class folders, "tfds:NAME", the folder of a
                    # prepared TFDS data set, "fashion_mnist", or a CSV file
                    # with labels of ranges of the videos in data.dataset.
                    "dataset": "tfds:imagenet2012",
                    "split": "train",
                    # With a CSV file above: another CSV file. "none": no test.
                    "test_split": "validation",
                    "class_names": (),  # (): the data set's names
                    "label_fraction": 1.0,  # share of the labels used
                    # Hash of the labels drawn by the seed; filled in by a run.
                    "label_subset": "",
                    "batch_size": 0,  # labelled images
                    "unlabelled_batch_size": 0,
                    "copies": 1,  # views of each image
                    "crop_area": (0.05, 1.0),  # [G]
                    "views": "none",  # colour changes, as for frames
                    "augment": "none",  # or "rand_augment"
                },
            },
            "model": {
                # Also efficientnet_lite0, applications:NAME, keras_hub:PRESET,
                # module:PATH or run:WORKDIR; see --list_encoders.
                "encoder": "resnet50v2",  # [R]
                # "auto": the encoder's own weights (resnet50v2: random ones);
                # or "imagenet", "none" or a weights file.
                "weights": "auto",
                "pool": False,  # average the feature maps of a module
                # The next three are for resnet50v2.
                "width": 1.0,  # 3 is "Big"  [P]
                "units": (3, 4, 6, 3),  # ResNet-50  [R]
                "norm": "batch",
                "init": "",  # deprecated; use encoder="run:WORKDIR"
                "weight_decay": 1e-4,  # of the kernels, as w^2 / 2  [G]
                # Whether frames and images are encoded separately, and which
                # of their batch statistics then update the moving averages.
                "separate_passes": False,  # [G], S4L
                "statistics": "both",
            },
            "adapt": {  # limits the changes of a pretrained encoder
                "warmup_head_steps": 0,  # first steps that train only the heads
                "trainable": "all",  # or "last:N" blocks, "norm", "bias"
                # Scales the updates of the last block, and once more those of
                # each block before it.
                "layer_decay": 1.0,
                "freeze_statistics": False,  # those of batch norm
                "keep_close": 0.0,  # weight of the distance to the start
                # Shares of the start in the mixes that --keep_best also tries.
                "start_shares": (),
            },
            "objective": {},  # kind of level -> its arguments
            "optimizer": {
                "name": "sgd",  # or "lars", "adam", "adamw"
                "momentum": 0.9,  # [R]
                "nesterov": False,
                "clip_norm": 0.0,  # 0: none
                # For adamw and lars; replaces all other decay.
                "weight_decay": 0.0,
                "trust": 0.001,  # eta of lars
            },
            "schedule": {
                "name": "piecewise",
                "learning_rate": 0.8,  # [R]
                # Scale the rate by batch / this base batch; 0: do not scale.
                "base_batch_size": 0,
                "warmup_steps": 5000,  # [R]
                "boundaries": (90_000, 110_000),  # [R]
                "factor": 0.1,  # [R]
            },
            "train": {
                "steps": 120_000,  # [R]
                "micro_batches": 1,  # parts of a batch; gradients are averaged
                "precision": "auto",  # bfloat16 on a TPU, else float32
                "average_decay": 0.0,  # of the encoder's moving averages
                "log_every_steps": 100,
                "checkpoint_every_steps": 1000,
                "test_every_steps": 1000,  # on labelled test images
                "keep_checkpoints": 3,
                "keep_every_steps": 0,  # also keep multiples of this; 0: none
            },
        }
    )


def demo_config() -> ml_collections.ConfigDict:
    """The same settings, small enough for two CPU cores; all values [O]."""
    config = paper_config()
    config.data.update(image_size=48, crop_area=(0.3, 1.0), batch_size=16)
    config.data.images.update(
        dataset="fashion_mnist", test_split="test", crop_area=(0.3, 1.0)
    )
    config.model.update(width=0.25, units=(1, 1, 1, 1))
    config.optimizer.name = "adam"
    config.schedule.update(
        name="cosine",
        learning_rate=1e-3,
        warmup_steps=100,
        boundaries=(),
    )
    config.train.update(
        steps=1500,
        log_every_steps=50,
        checkpoint_every_steps=250,
        test_every_steps=500,
    )
    return config


EXEMPLAR = {  # [G], except which levels use it
    "loss": "triplet",
    "margin": 0.5,
    "temperature": 0.1,  # of losses that have one  [O]
    "head_units": 1000,
    "negatives": "global",
    "same_video_negatives": True,  # [O]
    "sigreg_weight": 0.05,  # these two are for the loss "sigreg"  [O]
    "num_directions": 256,
}
INFO_NCE = {
    "weight": 0.04,  # lambda  [R]
    "predictor": "lstm",  # [R]
    "critic": "mlp",  # [R]
    "units": 256,  # [R]
    "pool": "mean",  # [R]
    "negatives": "global",  # [R]
}
