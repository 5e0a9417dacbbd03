"""What a trace says of a GPU: kernels a step, how much of the time it was busy, and the most expensive kernels.

    python3 bench/gpu_trace.py TRACE.json STEPS

The trace is a worker's (`profile = "TRACE.json"`) or one of PyTorch's profiler: Chrome's format.
"""

import json
import sys
from collections import defaultdict

# Categories of what runs on a GPU.
ON_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}
SHOWN = 10


def summary(path, steps):
    """By the trace in `path` of so many steps; None if nothing ran on a GPU. Times in milliseconds."""
    with open(path) as file:
        events = json.load(file)["traceEvents"]
    ran = [event for event in events if event.get("cat") in ON_GPU and event.get("ph") == "X"]
    if not ran:
        return None
    begun = min(event["ts"] for event in ran)
    ended = max(event["ts"] + event["dur"] for event in ran)
    calls, spent = defaultdict(int), defaultdict(float)
    for event in ran:
        calls[event["name"]] += 1
        spent[event["name"]] += event["dur"]
    most = sorted(spent, key=spent.get, reverse=True)[:SHOWN]
    return {
        "launches_per_step": round(len(ran) / steps, 1),
        "busy_share": round(busy(ran) / (ended - begun), 4),
        "busy_ms_per_step": round(busy(ran) / steps / 1e3, 3),
        "most_expensive": [
            {"kernel": name, "ms_per_step": round(spent[name] / steps / 1e3, 3), "calls_per_step": round(calls[name] / steps, 1)}
            for name in most
        ],
    }


def busy(ran):
    """The time during which anything ran, microseconds. Streams overlap."""
    total, until = 0.0, float("-inf")
    for event in sorted(ran, key=lambda event: event["ts"]):
        end = event["ts"] + event["dur"]
        total += max(0.0, end - max(event["ts"], until))
        until = max(until, end)
    return total


def table(of):
    """For people."""
    lines = [f"{of['launches_per_step']} kernels and copies a step; the GPU is busy {100 * of['busy_share']:.0f} % of the time, "
             f"{of['busy_ms_per_step']} ms a step"]
    for row in of["most_expensive"]:
        name = row["kernel"] if len(row["kernel"]) <= 90 else row["kernel"][:87] + "..."
        lines.append(f"  {row['ms_per_step']:8.3f} ms  {row['calls_per_step']:6.1f} calls  {name}")
    return "\n".join(lines)


def main():
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal() or sys.argv[2] == "0":
        sys.exit(__doc__)
    try:
        of = summary(sys.argv[1], int(sys.argv[2]))
    except (OSError, ValueError, KeyError) as problem:
        sys.exit(f"{sys.argv[1]} cannot be read as a trace: {problem}")
    print(table(of) if of else f"{sys.argv[1]}: nothing ran on a GPU")


if __name__ == "__main__":
    main()
