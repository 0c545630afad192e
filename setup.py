"""Packaging of vivi-keras."""

import pathlib
import re
import sys

import setuptools

if not (3, 10) <= sys.version_info < (3, 14):
    # python_requires says so, too, but an old pip first downloads everything.
    sys.exit(
        "vivi-keras needs Python 3.10 to 3.13. Got: {}.{}".format(
            *sys.version_info
        )
    )

ROOT = pathlib.Path(__file__).parent
# Read, not imported: setup.py runs before the requirements are installed.
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (ROOT / "vivi_keras" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
)[1]
LIBRARY = setuptools.find_packages(include=["vivi_keras", "vivi_keras.*"])

# training/, export/ and hub_modules/ stand at the top of the repository but
# install inside vivi_keras, so that no generic top-level name is taken.
MAPPED = {
    "vivi_keras.training": "training",
    "vivi_keras.training.configs": "training/configs",
    "vivi_keras.export": "export",
    "vivi_keras.hub_modules": "hub_modules",
}

# Each range was run by the tests at its oldest and at its newest version.
TEST = [
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "ruff>=0.6,<1",
    "import-linter>=2.17,<3; python_version >= '3.11'",
    "nbclient>=0.10,<1",
    "nbformat>=5.10,<6",
    "ipykernel>=6.29,<8",
]
DOCS = ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29,<2"]
CONVERT = [
    "tf2onnx>=1.17,<2",
    "onnx>=1.17,<2",
    "onnxruntime>=1.18,<2",
    "ai-edge-litert>=1.0,<3",
]
ARCHIVE = [
    "pyarrow>=15,<27",
    "faiss-cpu>=1.12,<2",
    "usearch>=2.17,<3",
    "pandas>=2.1.1,<4",
]

DOMAIN = ["vizdoom>=1.3,<1.4"]

# KerasHub 0.32 needs Keras 3.15 and Python 3.11.
HUB = ["keras-hub>=0.32,<0.33; python_version >= '3.11'"]

setuptools.setup(
    name="vivi-keras",
    version=VERSION,
    description=(
        "Image encoders from unlabelled video: video-induced visual"
        " invariances (VIVI) on Keras 3 and TensorFlow 2"
    ),
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The vivi-keras authors",
    project_urls={"Paper": "https://arxiv.org/abs/1912.02783"},
    keywords=[
        "self-supervised learning",
        "representation learning",
        "video",
        "image encoder",
        "VIVI",
        "Keras",
        "TensorFlow",
        "TF Hub",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",
    packages=[*LIBRARY, *MAPPED],
    package_dir=MAPPED,
    package_data={
        "vivi_keras": ["py.typed"],
        "vivi_keras.pages": ["*.html", "*.css", "*.md"],
        "vivi_keras.video": ["*.npz"],
        "vivi_keras.hub_modules": [
            "*.yaml",
            "*.md",
            "*.html",
            "**/*",
            "**/**/*",
            "**/**/**/*",
        ],
    },
    exclude_package_data={"": ["__pycache__/*", "*.py[cod]"]},
    install_requires=[
        "tensorflow>=2.16.1,<2.22",
        "keras>=3.12,<3.16",
        "tensorflow-datasets>=4.9.7,<5",
        "tensorflow-metadata>=1.17.3,<1.22",
        "tensorflow-hub>=0.16.1,<0.17",
        # tensorflow-hub imports pkg_resources but does not require
        # setuptools; setuptools 81 no longer has pkg_resources.
        "setuptools>=66.1,<81",
        "tf-keras>=2.16,<2.22",
        # TensorFlow 2.21 no longer requires tensorboard.
        "tensorboard>=2.16,<2.22",
        "absl-py>=2,<3",
        "ml-collections>=1,<2",
        "array-record>=0.5.1,<0.9",
        "simplejpeg>=1.8,<2",
        "av>=17.1,<20",
        "opencv-python-headless>=4.8,<6",
        "scenedetect-headless>=0.7,<0.8",
        "scikit-learn>=1.4,<2",
        "scipy>=1.11.2,<2",
        "matplotlib>=3.8,<4",
        "numpy>=1.26,<3",
        "jinja2>=3.1,<4",
        "pillow>=10,<14",
        "tqdm>=4.60,<5",
        "pyyaml>=6.0.1,<7",
        "threadpoolctl>=3.1,<4",
        # tensorflow-datasets imports it but does not require it.
        "importlib_resources>=6,<8",
    ],
    extras_require={
        # Includes what the tests of the extras need.
        "test": [*TEST, *CONVERT, *HUB, *ARCHIVE, *DOMAIN, *DOCS],
        "archive": ARCHIVE,
        # For tests/archive/test_browser.py; the browser is the system's own.
        "browser": ["playwright>=1.50,<2"],
        "beam": ["apache-beam>=2.60,<3", "mlcroissant>=1,<2"],
        "convert": CONVERT,
        "docs": DOCS,
        "domain": DOMAIN,
        "hub": HUB,
        # Python 3.10 gets 0.6.2. docs/training.md says what else is needed to
        # train without TensorFlow.
        "jax": ["jax>=0.6.2,<0.11"],
        "maps": ["umap-learn>=0.5.9,<0.6"],
        # The last tensorflow-io works only with TensorFlow 2.16.
        "tfio": ["tensorflow==2.16.*", "tensorflow-io==0.37.1"],
    },
    entry_points={
        "console_scripts": [
            "vivi=vivi_keras.training:main",
            "vivi-prepare=vivi_keras.training.prepare:run",
            "vivi-pretrain=vivi_keras.training.pretrain:run",
            "vivi-adapt=vivi_keras.training.adapt:run",
            "vivi-export=vivi_keras.export.main:run",
            "vivi-evaluate=vivi_keras.training.evaluate:run",
            "vivi-verify=vivi_keras.export.verify:run",
            "vivi-embed=vivi_keras.training.embed:run",
            "vivi-search=vivi_keras.training.search:run",
            "vivi-label=vivi_keras.training.label:run",
        ]
    },
)
