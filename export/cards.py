"""Writes the Markdown cards of a module in each hub's format."""

import json

_LICENCE = "Apache-2.0"
_TRUST = (
    "A SavedModel is a program: load it only from publishers you trust, and"
    " compare its hash."
)


def network_name(told):
    """The architecture's name, such as "resnet-v2-50-w1", or "unknown".

    Args:
        told: dict of a module's vivi.json.
    """
    start = told.get("start", {}).get("encoder", "resnet50v2")
    if start != "resnet50v2":
        return "-".join(start.replace(":", " ").split()).lower()
    model = told.get("config", {}).get("model")
    if model is None:
        return "unknown"
    # A bottleneck unit has 3 convolutions; root and classifier add 2.
    depth = 3 * sum(model["units"]) + 2
    return f"resnet-v2-{depth}-w{model['width']:g}"


def tfhub_card(publisher, entry, told, bundled=False):
    """The card for TF Hub's pages.

    Args:
        publisher: str. entry: dict of the registry. told: dict of vivi.json.
        bundled: whether it is in hub_modules, where it is found by name.
    Returns: str, Markdown with the hub's front matter in comments.
    """
    data = _data(entry, told)
    front = {
        "dataset": _slug(data.get("name", "unknown")),
        "task": "image-feature-vector",
        "network-architecture": network_name(told),
        "fine-tunable": str(_is_fine_tunable(told)).lower(),
        "format": "saved_model_2",
        "license": entry.get("licence", _LICENCE).lower(),
    }
    lines = [
        f"# Module {publisher}/{entry['name']}/{entry['version']}",
        "",
        _description(entry, told),
        "",
        *(f"<!-- {key}: {value} -->" for key, value in front.items()),
        "",
        *_body(entry, told, bundled),
    ]
    return "\n".join(lines) + "\n"


def hugging_face_card(publisher, entry, told):
    """README.md for the Hugging Face hub: YAML front matter, same text."""
    import yaml

    front = yaml.safe_dump(
        {
            "license": entry.get("licence", _LICENCE).lower(),
            "library_name": "keras",
            "pipeline_tag": "image-feature-extraction",
            "tags": ["tensorflow", "self-supervised", "video", "vivi"],
        },
        sort_keys=False,
    )
    lines = [
        f"---\n{front}---",
        f"# {entry['name']} {entry['version']}",
        "",
        _description(entry, told),
        "",
        *_body(entry, told),
    ]
    return "\n".join(lines) + "\n"


def kaggle_files(publisher, entry, told):
    """The metadata files that Kaggle's command line reads.

    Returns: dict file name -> content.
    """
    licence = entry.get("licence", _LICENCE)
    model = {
        "ownerSlug": publisher,
        "slug": entry["name"],
        "title": entry["name"],
        "subtitle": _description(entry, told)[:255],
        "isPrivate": True,
        "description": tfhub_card(publisher, entry, told),
        "publishTime": "",
        "provenanceSources": "",
    }
    instance = {
        "ownerSlug": publisher,
        "modelSlug": entry["name"],
        "instanceSlug": "default",
        "framework": "tensorFlow2",
        "overview": _description(entry, told),
        "usage": "\n".join(_use(entry, told, bundled=False)),
        "licenseName": licence.replace("-", " ", 1),
        "fineTunable": _is_fine_tunable(told),
        "trainingData": [_data(entry, told).get("name", "unknown")],
    }
    return {
        "model-metadata.json": json.dumps(model, indent=2) + "\n",
        "model-instance-metadata.json": json.dumps(instance, indent=2) + "\n",
    }


def _is_fine_tunable(told):
    """Whether the kernels can be trained; float16 kernels are frozen."""
    return told.get("weights", {}).get("dtype") != "float16"


def _slug(text):
    return "-".join(text.lower().split())


def _data(entry, told):
    return entry.get("training_data", told.get("training_data", {}))


def _description(entry, told):
    text = entry.get(
        "description",
        f"Features [{told.get('num_features')}] of images from a"
        f" {network_name(told)} trained as {told.get('row', 'unknown')}.",
    )
    return " ".join(text.split())


def _body(entry, told, bundled=False):
    return [
        *_overview(entry, told),
        *_use(entry, told, bundled),
        *_text("Intended use", entry.get("intended_use")),
        *_training(entry, told),
        *_results(entry),
        *_text("Limits", entry.get("limits")),
        "## Licence",
        "",
        f"{entry.get('licence', _LICENCE)}.{_start_licence(told)} {_TRUST}",
    ]


def _start_licence(told):
    start = told.get("start", {})
    if not start.get("licence"):
        return ""
    return (
        f" The weights that it was trained from ({start['weights']}):"
        f" {start['licence']}."
    )


def _text(title, text):
    return [f"## {title}", "", text.strip(), ""] if text else []


def _overview(entry, told):
    height, width = told.get("image_size", (None, None))
    start = told.get("start")
    rows = {
        "network": network_name(told),
        "input": "float32 [N, H, W, 3], RGB in [0, 1], any size of at least"
        f" {told.get('minimum_size')} px; trained at {height} x {width}",
        "output": f"float32 [N, {told.get('num_features')}]",
        "parameters": f"{told.get('num_parameters', 0):,}",
        "weights": json.dumps(told.get("weights"), sort_keys=True),
        "method row": told.get("row"),
        "seed, steps": f"{told.get('seed')}, {told.get('steps')}",
        "made with": ", ".join(
            f"{k} {v}" for k, v in told.get("created_with", {}).items()
        ),
        "signatures": ", ".join(told.get("signatures", [])),
        "content hash": told.get("content_sha256"),
    }
    if start is not None:
        rows["trained from"] = f"{start['encoder']}, {start['weights']} weights"
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return ["## What it is", "", "| | |", "|---|---|", *lines, ""]


def _use(entry, told, bundled):
    name, where = "FOLDER", "FOLDER"
    if bundled:
        name = f"{entry['name']}/{entry['version']}"
        where = f"hub_modules/{name}"
    trainable = f"trainable={_is_fine_tunable(told)}"
    lines = [
        "## Use",
        "",
        "```python",
        "import tensorflow_hub as hub",
        "import tf_keras  # hub.KerasLayer is a layer of tf_keras",
        "",
        f'encoder = hub.KerasLayer("{where}", {trainable})',
        "model = tf_keras.Sequential([encoder, tf_keras.layers.Dense(10)])",
        "```",
        "",
        f'In Keras 3: `vivi_keras.load("{name}", {trainable})`.'
        f" `vivi-verify {name}` checks it.",
        "",
    ]
    if not bundled:
        lines[1:1] = ["", "FOLDER is where the module's files lie, unpacked."]
    return lines


def _training(entry, told):
    data = _data(entry, told)
    lines = ["## Training", ""]
    lines += [f"- {key}: {value}" for key, value in data.items()]
    lines += ["", *_command(entry)]
    log = entry.get("training_log")
    if log:
        names = list(log[0])
        lines += ["", *_table(names, [[row[n] for n in names] for row in log])]
    return [*lines, ""]


def _results(entry):
    results = entry.get("results")
    if not results:
        return []
    names = list(results["rows"][0])
    rows = [[row[name] for name in names] for row in results["rows"]]
    return [
        "## Results",
        "",
        "Accuracy in per cent of frozen features, from the command below.",
        "",
        *_table(names, rows),
        "",
        *_command(results),
        "",
    ]


def _command(entry):
    return (
        ["```", entry["command"].strip(), "```"] if "command" in entry else []
    )


def _table(names, rows):
    return [
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]
