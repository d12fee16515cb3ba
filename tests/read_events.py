"""Prints the scalars of an event directory as TensorBoard reads them: JSON, {tag: [[step, value], ...]}.

    read_events.py DIRECTORY
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={SCALARS: 0})  # 0: keep all
events.Reload()
scalars = {tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in events.Tags()[SCALARS]}
print(json.dumps(scalars))
