"""Prints what TensorBoard reads in an event directory, as JSON.

    read_events.py DIRECTORY    {"scalars": {tag: [[step, value], ...]}, "histograms": {tag: [[step, number, sum], ...]},
                                 "images": {tag: [[step, width, height, gray pixels row by row], ...]},
                                 "texts": {tag: [[step, text], ...]}, "parameters": {name: value},
                                 "status": how HPARAMS says that it ended, null where nothing is said}
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import (
    HISTOGRAMS, IMAGES, SCALARS, TENSORS, EventAccumulator,
)
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from png import gray

ALL = 0  # keep every event
events = EventAccumulator(sys.argv[1], size_guidance={SCALARS: ALL, HISTOGRAMS: ALL, IMAGES: ALL, TENSORS: ALL})
events.Reload()
tags = events.Tags()


def image(event):
    width, height, pixels = gray(event.encoded_image_string)
    assert (width, height) == (event.width, event.height), f"{event.width} x {event.height} of a PNG {width} x {height}"
    return [event.step, width, height, pixels]


def histogram(event):
    value = event.histogram_value
    return [event.step, value.num, value.sum]


parameters, status = {}, None
for content in events.summary_metadata.values():
    if content.plugin_data.plugin_name == "hparams":
        data = plugin_data_pb2.HParamsPluginData.FromString(content.plugin_data.content)
        for name, value in data.session_start_info.hparams.items():
            parameters[name] = getattr(value, value.WhichOneof("kind"))
        if data.HasField("session_end_info"):
            status = api_pb2.Status.Name(data.session_end_info.status)

texts = {
    tag: [[event.step, event.tensor_proto.string_val[0].decode()] for event in events.Tensors(tag)]
    for tag in events.PluginTagToContent("text")
}
print(json.dumps({
    "scalars": {tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in tags[SCALARS]},
    "histograms": {tag: [histogram(event) for event in events.Histograms(tag)] for tag in tags[HISTOGRAMS]},
    "images": {tag: [image(event) for event in events.Images(tag)] for tag in tags[IMAGES]},
    "texts": texts,
    "parameters": parameters,
    "status": status,
}))
