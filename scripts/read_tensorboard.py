#!/usr/bin/env python3
"""Reads event files with TensorBoard's own reader, for the tests.

    .model-tools/bin/python scripts/read_tensorboard.py FOLDER

FOLDER is a run's. Prints one JSON object: `scalars`, for each tag a list of [step, value], and `hparams`, by name.
"""

import json
import sys

from tensorboard.backend.event_processing import plugin_event_accumulator as accumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util import tensor_util


def main():
    # 0: keep every value.
    events = accumulator.EventAccumulator(sys.argv[1], size_guidance={}, tensor_size_guidance={"scalars": 0})
    events.Reload()
    scalars = {
        tag: [[event.step, float(tensor_util.make_ndarray(event.tensor_proto))] for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
    }
    hparams = {}
    for content in events.PluginTagToContent("hparams").values() if "hparams" in plugins(events) else []:
        for name, value in metadata.parse_session_start_info_plugin_data(content).hparams.items():
            kind = value.WhichOneof("kind")
            hparams[name] = getattr(value, kind)
    json.dump({"scalars": scalars, "hparams": hparams}, sys.stdout)


def plugins(events):
    return {events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]}


if __name__ == "__main__":
    main()
