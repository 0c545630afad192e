"""Image encoders from unlabelled video (VIVI) on Keras 3.

Names are imported on first use, so that `import vivi_keras` is quick and the
models and losses work on Keras backends without TensorFlow.
"""

import functools
import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import warnings

__version__ = "0.2.0"

_PLACES = {
    "ResNet50V2": "vivi_keras.models.resnet",
    "Objective": "vivi_keras.objective",
    "ViviModel": "vivi_keras.trainer.model",
    "HubEncoder": "vivi_keras.models.hub",
    "load": "vivi_keras.models.hub",
    "adapt": "vivi_keras.training.pipeline",
    "run": "vivi_keras.training.pipeline",
    "export_encoder": "vivi_keras.export",
}
_MODULES = (
    "archive",
    "data",
    "evaluation",
    "losses",
    "models",
    "objective",
    "prepare",
    "trainer",
    "video",
)
# Modules with classes that Keras finds by name when it loads a saved file.
_SAVED = (
    "vivi_keras.models.applications",
    "vivi_keras.models.efficientnet",
    "vivi_keras.models.heads",
    "vivi_keras.models.resnet",
    "vivi_keras.models.hub",
    "vivi_keras.objective",
    "vivi_keras.trainer.model",
    "vivi_keras.trainer.optimizers",
)
# Old names of modules -> the modules that now hold their content. Importing
# an old name warns.
_MOVED = {
    "vivi_keras.callbacks": ("trainer.callbacks", "trainer.collapse"),
    "vivi_keras.checkpoints": ("runs.checkpoints", "checks"),
    "vivi_keras.data.sources": ("data.image_sources",),
    "vivi_keras.fields": ("trainer.batch",),
    "vivi_keras.hub": ("models.hub",),
    "vivi_keras.hub_modules.publish": ("export.publish",),
    "vivi_keras.registry": ("models.registry",),
    "vivi_keras.strategies": (
        "trainer.strategies",
        "trainer.workers",
        "trainer.batch",
        "trainer.tf_step",
        "levels.replicas",
    ),
    "vivi_keras.training.probes": ("trainer.probe",),
    "vivi_keras.video.demo_corpus": ("demo.corpus",),
    "vivi_keras.video.prepare": ("prepare",),
    "vivi_keras.watching": ("trainer.tensorboard", "trainer.callbacks"),
}

_BACKENDS = ("tensorflow", "jax", "torch", "openvino")

__all__ = sorted([*_PLACES, *_MODULES])


def _is_command():
    """Whether this process was started as one of our commands."""
    started = os.path.basename(sys.argv[0]) if sys.argv else ""
    if started == "-m":  # `python -m`, while Python still looks for the module
        return any(w.startswith("vivi_keras.") for w in sys.orig_argv)
    return started == "vivi" or started.startswith("vivi-")


# While a command starts, Ctrl-C ends it without a traceback; `commands.run`
# handles it later.
if (
    _is_command()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module under its old name, with a warning."""

    def find_spec(self, name, path=None, target=None):
        if name not in _MOVED:
            return None
        return importlib.util.spec_from_loader(name, self)

    def exec_module(self, module):
        _warn(module.__name__)
        places = _MOVED[module.__name__]

        def find(name):
            for place in places:
                found = importlib.import_module(f"vivi_keras.{place}")
                if hasattr(found, name):
                    return getattr(found, name)
            raise AttributeError(
                f"module {module.__name__!r} has no attribute {name!r}"
            )

        module.__getattr__ = find


def _warn(name):
    places = ", ".join(f"vivi_keras.{place}" for place in _MOVED[name])
    warnings.warn(
        f"{name} was moved. Its content is now in {places}.",
        DeprecationWarning,
        stacklevel=3,
    )


class ImportHook(importlib.abc.MetaPathFinder):
    """Base class of import hooks that act when certain modules are loaded.

    In a subclass, `wants(name)` returns whether to handle a module, and
    `load(module, load)` loads it: it must call its second argument with the
    module.
    """

    def find_spec(self, name, path=None, target=None):
        if not self.wants(name):
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    spec.loader.exec_module = functools.partial(
                        self.load, load=spec.loader.exec_module
                    )
                    return spec
        return None


def _no_backend(backend):
    others = [
        name
        for name in ("tensorflow", "jax")
        if name != backend and importlib.util.find_spec(name) is not None
    ]
    instead = f", or set KERAS_BACKEND={others[0]}" if others else ""
    return (
        f"Keras's backend is {backend!r}, by the variable KERAS_BACKEND or the"
        f" file ~/.keras/keras.json, but {backend!r} is not installed. Install"
        f" it{instead}."
    )


class _RegisterWithKeras(ImportHook):
    """Registers our saved classes as soon as Keras is imported.

    If one of our modules imports Keras, the classes are registered only after
    that module has been loaded.
    """

    def __init__(self):
        self._num_loading = 0

    def wants(self, name):
        return name == "keras" or name.startswith("vivi_keras.")

    def load(self, module, load):
        self._num_loading += 1
        try:
            load(module)
        except ModuleNotFoundError as error:
            backend = str(error.name).partition(".")[0]
            if module.__name__ == "keras" and backend in _BACKENDS:
                raise ImportError(_no_backend(backend)) from error
            raise
        finally:
            self._num_loading -= 1
        keras = sys.modules.get("keras")
        if not self._num_loading and hasattr(keras, "__version__"):
            self.register()

    def register(self):
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            for name in _SAVED:
                importlib.import_module(name)


sys.meta_path[:0] = [_MovedModules(), _RegisterWithKeras()]
if "keras" in sys.modules:
    sys.meta_path[1].register()


def __getattr__(name):
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"vivi_keras.{name}")
    old = f"vivi_keras.{name}"
    if old in _MOVED:
        _warn(old)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(old)
    raise AttributeError(f"module 'vivi_keras' has no attribute {name!r}")


def __dir__():
    return __all__ + ["__version__"]
