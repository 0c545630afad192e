"""Writes the Markdown cards of a module in each hub's format."""

import json

from vivi_keras import pages


def network_name(metadata):
    """The architecture's name, such as "resnet-v2-50-w1", or "unknown".

    Args:
        metadata: dict of a module's vivi.json.
    """
    start = metadata.get("start", {}).get("encoder", "resnet50v2")
    if start != "resnet50v2":
        return "-".join(start.replace(":", " ").split()).lower()
    model = metadata.get("config", {}).get("model")
    if model is None:
        return "unknown"
    # A bottleneck unit has 3 convolutions; root and classifier add 2.
    depth = 3 * sum(model["units"]) + 2
    return f"resnet-v2-{depth}-w{model['width']:g}"


def tfhub_card(publisher, entry, metadata, bundled=False):
    """The card for TF Hub's pages.

    Args:
        publisher: str. entry: dict of the registry.
        metadata: dict of vivi.json.
        bundled: whether the module is in hub_modules, to be found by name.
    Returns: str, Markdown with the hub's front matter in comments.
    """
    comments = {
        "dataset": _slug(_data(entry, metadata).get("name", "unknown")),
        "task": "image-feature-vector",
        "network-architecture": network_name(metadata),
        "fine-tunable": str(_is_fine_tunable(metadata)).lower(),
        "format": "saved_model_2",
        "license": _licence(entry).lower(),
    }
    return _card(publisher, entry, metadata, bundled, comments=comments)


def hugging_face_card(publisher, entry, metadata):
    """README.md for the Hugging Face hub: YAML front matter, same text."""
    import yaml

    front = yaml.safe_dump(
        {
            "license": _licence(entry).lower(),
            "library_name": "keras",
            "pipeline_tag": "image-feature-extraction",
            "tags": ["tensorflow", "self-supervised", "video", "vivi"],
        },
        sort_keys=False,
    )
    return _card(publisher, entry, metadata, bundled=False, yaml=front)


def kaggle_files(publisher, entry, metadata):
    """The metadata files that Kaggle's command line reads.

    Returns: dict file name -> content.
    """
    model = {
        "ownerSlug": publisher,
        "slug": entry["name"],
        "title": entry["name"],
        "subtitle": _description(entry, metadata)[:255],
        "isPrivate": True,
        "description": tfhub_card(publisher, entry, metadata),
        "publishTime": "",
        "provenanceSources": "",
    }
    usage = pages.render_markdown(
        "card_use.md", **_use(entry, metadata, bundled=False)
    )
    instance = {
        "ownerSlug": publisher,
        "modelSlug": entry["name"],
        "instanceSlug": "default",
        "framework": "tensorFlow2",
        "overview": _description(entry, metadata),
        "usage": usage,
        "licenseName": _licence(entry).replace("-", " ", 1),
        "fineTunable": _is_fine_tunable(metadata),
        "trainingData": [_data(entry, metadata).get("name", "unknown")],
    }
    return {
        "model-metadata.json": json.dumps(model, indent=2) + "\n",
        "model-instance-metadata.json": json.dumps(instance, indent=2) + "\n",
    }


def _card(publisher, entry, metadata, bundled, comments=None, yaml=None):
    return pages.render_markdown(
        "card.md",
        publisher=publisher,
        entry=entry,
        description=_description(entry, metadata),
        data=_data(entry, metadata),
        facts=_facts(metadata),
        licence=_licence(entry),
        start=metadata.get("start", {}),
        comments=comments or {},
        yaml=yaml,
        **_use(entry, metadata, bundled),
    )


def _is_fine_tunable(metadata):
    """Whether the kernels can be trained; float16 kernels are frozen."""
    return metadata.get("weights", {}).get("dtype") != "float16"


def _slug(text):
    return "-".join(text.lower().split())


def _licence(entry):
    return entry.get("licence", "Apache-2.0")


def _data(entry, metadata):
    return entry.get("training_data", metadata.get("training_data", {}))


def _description(entry, metadata):
    text = entry.get(
        "description",
        f"Features [{metadata.get('num_features')}] of images from a"
        f" {network_name(metadata)}"
        f" trained as {metadata.get('row', 'unknown')}.",
    )
    return " ".join(text.split())


def _facts(metadata):
    height, width = metadata.get("image_size", (None, None))
    start = metadata.get("start")
    facts = {
        "network": network_name(metadata),
        "input": "float32 [N, H, W, 3], RGB in [0, 1], any size of at least"
        f" {metadata.get('minimum_size')} px; trained at {height} x {width}",
        "output": f"float32 [N, {metadata.get('num_features')}]",
        "parameters": f"{metadata.get('num_parameters', 0):,}",
        "weights": json.dumps(metadata.get("weights"), sort_keys=True),
        "method row": metadata.get("row"),
        "seed, steps": f"{metadata.get('seed')}, {metadata.get('steps')}",
        "made with": ", ".join(
            f"{k} {v}" for k, v in metadata.get("created_with", {}).items()
        ),
        "signatures": ", ".join(metadata.get("signatures", [])),
        "content hash": metadata.get("content_sha256"),
    }
    kept = metadata.get("chosen_by")
    if kept is not None:
        share = kept.get("start_share")
        facts["kept"] = (
            f"step {kept['step']} of {metadata['last_step']}, the best by a"
            f" probe{f', mixed with {share:g} of the start' if share else ''}"
        )
    if start is not None:
        facts["trained from"] = (
            f"{start['encoder']}, {start['weights']} weights"
        )
    return facts


def _use(entry, metadata, bundled):
    """The values for the template card_use.md."""
    key = f"{entry['name']}/{entry['version']}"
    return {
        "bundled": bundled,
        "key": key if bundled else "FOLDER",
        "where": f"hub_modules/{key}" if bundled else "FOLDER",
        "fine_tunable": _is_fine_tunable(metadata),
    }
