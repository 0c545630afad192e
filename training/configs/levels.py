"""Arguments of the levels that several rows share."""

EXEMPLAR = {  # [G] but for the levels it is used at
    "loss": "triplet",
    "margin": 0.5,
    "temperature": 0.1,  # of the losses that have one  [O]
    "head_units": 1000,
    "negatives": "global",
    "same_video_negatives": True,  # [R]
}
INFO_NCE = {
    "weight": 0.04,  # lambda  [R]
    "predictor": "lstm",  # [R]
    "critic": "mlp",  # [R]
    "units": 256,  # [R]
    "pool": "mean",  # [R]
    "negatives": "global",  # [R]
}
