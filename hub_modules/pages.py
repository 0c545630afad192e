"""README.md and index.html of the published encoders, from the registry."""

import html

from vivi_keras.export import cards

_COLUMNS = (
    "module",
    "network",
    "features",
    "input",
    "training data",
    "size",
    "licence",
)
_INTRODUCTION = (
    "Image encoders trained by this project, each a reusable SavedModel that"
    " loads right after a clone. They are small and trained for minutes on a"
    " CPU: to try the interface with, and to show what the method does, not to"
    " be the best features to be had. Each card tells the data, the exact"
    " command, measured results and limits."
)
_TRUST = (
    "A SavedModel is a program: load only those of publishers you trust."
    " vivi_keras.load compares the SHA-256 of registry.yaml first;"
    " vivi-verify checks what a module promises."
)
_EXAMPLE = """import tensorflow_hub as hub
import tf_keras  # hub.KerasLayer is a layer of tf_keras

encoder = hub.KerasLayer("hub_modules/{key}", trainable=True)
model = tf_keras.Sequential([encoder, tf_keras.layers.Dense(10)])"""
_KERAS3_EXAMPLE = """import keras
import vivi_keras

encoder = vivi_keras.load("{key}", trainable=True)
model = keras.Sequential([encoder, keras.layers.Dense(10)])"""
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem;
  margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin: 0 0 .3rem; }
article { border: 1px solid var(--line); border-radius: .6rem;
  padding: 1.1rem 1.3rem; margin: 1.4rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr;
  gap: .15rem 1rem; margin: .8rem 0; }
dt { opacity: .65; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .6rem 0;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left;
  border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
pre { background: var(--soft); padding: .8rem 1rem; border-radius: .4rem;
  overflow-x: auto; font-size: .88rem; }
"""


def readme(modules):
    """README.md.

    Args:
        modules: list of (key "name/version", registry entry, vivi.json dict).
    Returns: str.
    """
    lines = ["# Published encoders", "", _INTRODUCTION, ""]
    lines += ["| " + " | ".join(_COLUMNS) + " |"]
    lines += ["|" + "---|" * len(_COLUMNS)]
    for key, entry, told in modules:
        facts = _facts(key, entry, told)
        facts["module"] = f"[{key}]({key}.md)"
        lines.append("| " + " | ".join(facts[c] for c in _COLUMNS) + " |")
    lines += ["", "```python", _EXAMPLE.format(key=modules[0][0]), "```", ""]
    lines += ["In Keras 3:", ""]
    lines += ["```python", _KERAS3_EXAMPLE.format(key=modules[0][0]), "```"]
    lines += ["", _TRUST, ""]
    lines += [
        "This file, index.html, the cards and the signatures are made from",
        "registry.yaml by `python -m vivi_keras.hub_modules.publish`.",
    ]
    return "\n".join(lines) + "\n"


def index(modules):
    """index.html, complete in itself; arguments as for `readme`."""
    articles = "\n".join(_article(*module) for module in modules)
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>vivi-keras: published encoders</title>\n"
        f"<style>{_STYLE}</style></head><body>\n"
        f"<h1>Published encoders</h1>\n<p>{html.escape(_INTRODUCTION)}</p>\n"
        f"{articles}\n"
        f"<p>{html.escape(_TRUST)}</p>\n</body></html>\n"
    )


def _facts(key, entry, told):
    height, width = told["image_size"]
    return {
        "module": key,
        "network": cards.network_name(told),
        "features": str(told["num_features"]),
        "input": f"{height} x {width}, or any of at least"
        f" {told['minimum_size']}",
        "training data": entry["training_data"]["name"],
        "size": f"{entry['bytes'] / 1e6:.1f} MB",
        "licence": entry["licence"],
    }


def _article(key, entry, told):
    facts = {
        **_facts(key, entry, told),
        "method row": told["row"],
        "SHA-256": entry["sha256"],
    }
    del facts["module"]
    items = "".join(
        f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>"
        for k, v in facts.items()
    )
    return (
        f'<article id="{key}"><h2><a href="{key}.md">{key}</a></h2>\n'
        f"<p>{html.escape(' '.join(entry['description'].split()))}</p>\n"
        f"<dl>{items}</dl>\n{_results(entry)}"
        f"<pre>{html.escape(_EXAMPLE.format(key=key))}</pre></article>"
    )


def _results(entry):
    rows = entry.get("results", {}).get("rows", [])
    if not rows:
        return ""
    names = list(rows[0])

    def line(tag, values):
        return (
            "<tr>"
            + "".join(
                f"<{tag}{_class(value)}>{html.escape(str(value))}</{tag}>"
                for value in values
            )
            + "</tr>\n"
        )

    head = "".join(
        f"<th{_class(rows[0][name])}>{html.escape(name)}</th>" for name in names
    )
    body = "".join(line("td", row.values()) for row in rows)
    return (
        f"<table><tr>{head}</tr>\n{body}</table>\n"
        "<p>Accuracy in per cent, features frozen; the command stands in the"
        " card.</p>\n"
    )


def _class(value):
    return ' class="number"' if isinstance(value, (int, float)) else ""
