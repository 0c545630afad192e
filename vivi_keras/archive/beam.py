"""Embeds a data set on a cluster with Apache Beam.

The records are divided into ranges, and a worker embeds each range. It writes
a part of the index (see `store`) and, beside it, `parts/NAME.json`, which holds
the part's entry and the data set's fingerprint. `adopt` then enters the parts
into index.json. Every worker must be able to read the module and the data set,
and to write the index, under the same paths.
"""

from vivi_keras import files

RECORDS_PER_RANGE = 64  # [O]


def embed(store, source, embed_range, options):
    """Embeds the records that are not in the index, and adds their parts to it.

    Args:
        store: `store.Store`.
        source: `sources.DatasetSource`.
        embed_range: function that workers call with (name, start, stop); it
            embeds these records and writes the part of that name.
        options: Beam's options, such as "runner=DirectRunner,flink_master=H".
    Returns: number of frames that were entered.
    Raises: ImportError: Beam is not installed. RuntimeError: the pipeline
        failed; what it has embedded is kept.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ImportError(
            "beam_options needs Apache Beam, which is not installed:"
            " pip install 'vivi-keras[beam]'"
        ) from error

    count = adopt(store, source.fingerprint)
    number, ranges = store.next_number(), []
    for start in range(0, len(source), RECORDS_PER_RANGE):
        stop = min(start + RECORDS_PER_RANGE, len(source))
        ranges.append((f"{number + len(ranges):05d}", start, stop))
    flags = [f"--{option}" for option in options.split(",") if option]
    try:
        with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
            _ = (
                pipeline
                | beam.Create(ranges)
                | beam.Reshuffle()
                | beam.Map(embed_range)
            )
    finally:
        count += adopt(store, source.fingerprint)
    return count


def adopt(store, fingerprint):
    """Enters parts that workers finished, in this run or an earlier one.

    Args:
        store: `store.Store`.
        fingerprint: that of the data set; parts of another data set are not
            entered.
    Returns: number of frames that were entered.
    """
    known, count = {part["name"] for part in store.parts}, 0
    for path in sorted((store.folder / "parts").glob("*.json")):
        told = files.read_json(path)
        if told["fingerprint"] == fingerprint and told["name"] not in known:
            store.parts.append(
                {k: told[k] for k in ("name", "frames", "shots")}
            )
            known.add(told["name"])
            count += told["frames"]
    store.save()
    for path in (store.folder / "parts").glob("*.json"):
        path.unlink()
    return count
