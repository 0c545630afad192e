"""In which precision layers compute; weights stay in float32."""

import contextlib

import keras

POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
PRECISIONS = ("auto", *POLICIES)


@contextlib.contextmanager
def computing_in(precision: str):
    """Layers that are made in this context compute in `precision`.

    A model that is compiled in it with "float16" scales its loss.

    Args:
        precision: "float32", "bfloat16", "float16" or "auto": bfloat16 on a
            TPU, whose matrix unit has no other, else float32.
    Raises: ValueError: another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}."
            f" Got: {precision!r}"
        )
    if precision == "auto":
        precision = "bfloat16" if _has_tpu() else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _has_tpu():
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("TPU"))
