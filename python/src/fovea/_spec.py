"""Specs of runs: from run.toml or a dict to the wire, and back. The keys are those of the messages, which run.toml has, too.

Only keys and types are checked here; whether values make sense, the coordinator says.
"""

from __future__ import annotations

import difflib
import numbers
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from fovea.errors import SpecError
from fovea.v1 import common_pb2

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: What `model.labels` stands for: `model.classes` and `model.positive_from`.
_LABELS: dict[str, dict[str, int]] = {
    "any_dr": {"classes": 2, "positive_from": 1},
    "referable": {"classes": 2, "positive_from": 2},
    "four_classes": {"classes": 4},
    "grades": {"classes": 5},
}
#: Set by the coordinator, or by other requests.
_NOT_WRITTEN = {"evaluate"}


def word(enum: EnumDescriptor, number: int) -> str:
    """The word of run.toml for a value of an enum: `bf16` for PRECISION_BF16. Empty if it is not set, `unknown` if it is of a
    newer version."""
    if number == 0:
        return ""
    value = enum.values_by_number.get(number)
    return "unknown" if value is None else value.name.removeprefix(_prefix(enum)).lower()


def _prefix(enum: EnumDescriptor) -> str:
    """What all names of an enum begin with: that of its zero is PREFIX_UNSPECIFIED."""
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def spec_to_dict(spec: common_pb2.RunSpec) -> dict[str, Any]:
    """A spec in the words of run.toml. What is not set is left out."""
    return _to_dict(spec)


def _to_dict(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.name == "LayerList":
            out[field.name] = list(value.names)
        elif field.message_type is not None:
            out[field.name] = _to_dict(value)
        elif field.enum_type is not None:
            out[field.name] = word(field.enum_type, value)
        else:
            out[field.name] = value
    return out


def read_spec(given: Mapping[str, Any] | str | Path, *overrides: Mapping[str, Any]) -> common_pb2.RunSpec:
    """The spec of a dict or a run file, with `overrides` over it, the last one topmost.

    Raises SpecError with every mistake.
    """
    if isinstance(given, Mapping):
        where, values = "spec", _plain(given)
    else:
        where, values = str(given), _read_file(Path(given))
    for key, value in (item for over in overrides for item in over.items()):
        if key == "model.labels" or (key == "model" and isinstance(value, Mapping) and "labels" in value):
            # A scheme that overrides replaces what was said of classes.
            model = values.get("model")
            for replaced in ("classes", "positive_from"):
                if isinstance(model, dict):
                    model.pop(replaced, None)
        _merge(values, key, value)
    problems: list[str] = []
    model = values.setdefault("model", {})
    if isinstance(model, dict):
        problems.extend(_meaning(model))
    spec = common_pb2.RunSpec()
    problems.extend(_fill(spec, values, ""))
    for key in ("name", "dataset"):
        if key not in values:
            problems.append(f"{key}: is missing")
    if problems:
        raise SpecError("\n".join(f"{where}: {problem}" for problem in problems))
    return spec


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values: dict[str, Any] = tomllib.load(file)
            return values
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not TOML: {error}") from error


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, so that the caller's dict stays as it is. Keys may be dotted."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        _merge(out, key, value)
    return out


def settings_label(settings: Mapping[str, Any]) -> str:
    """What settings set, for people, as `fovea sweep` writes it: `train.batch=8 train.learning_rate=0.003`."""
    flat: dict[str, Any] = {}

    def flatten(prefix: str, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                flatten(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    flatten("", _plain(settings))
    return " ".join(f"{key}={_shown(flat[key])}" for key in sorted(flat))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_quoted, value))}]"
    return str(value)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else _shown(value)


def _merge(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets `key`, which may be dotted; a dict is merged with one that is there."""
    head, dot, rest = key.partition(".")
    if dot:
        value = {rest: value}
    if isinstance(value, Mapping):
        table = values.get(head)
        if not isinstance(table, dict):
            table = values[head] = {}
        for inner, item in value.items():
            _merge(table, inner, item)
    else:
        values[head] = value


def _meaning(model: dict[str, Any]) -> Iterator[str]:
    """Replaces what run.toml says for people by what it stands for. Gives the mistakes."""
    if "labels" in model:
        labels = model.pop("labels")
        meaning = _LABELS.get(labels) if isinstance(labels, str) else None
        if meaning is None:
            yield f"model.labels: {labels!r} is not one of {', '.join(_LABELS)}"
        for key, value in (meaning or {}).items():
            if model.setdefault(key, value) != value:
                yield f"model.labels: {labels!r} means {key} = {value}, and {key} is {model[key]}: leave one of them out"
    # The coordinator's default list is that of fine-tuning: elsewhere it would keep random layers as they are.
    implied = "fine_tune" if model.get("weights") else "from_scratch"
    if model.get("strategy", implied) != "fine_tune":
        model.setdefault("frozen", [])
    weights = model.get("weights")
    if isinstance(weights, str) and ("/" in weights or weights.endswith((".caffemodel", ".safetensors"))):
        yield (
            f"model.weights: {weights!r} is a file. Add it to the coordinator (`fovea weights add {weights}`) and give the "
            "name that it has there"
        )


def _fill(message: Message, values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Sets the fields of `message`. Gives the mistakes."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        key = prefix + name
        field = fields.get(name)
        if field is None or key in _NOT_WRITTEN:
            yield f"{key}: there is no such key{_nearest(name, fields)}"
        elif field.message_type is not None and field.message_type.name == "LayerList":
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
                yield f"{key}: {value!r} is not a list of names of layers"
                continue
            layers = getattr(message, name)
            layers.SetInParent()
            layers.names.extend(value)
        elif field.message_type is not None:
            if not isinstance(value, Mapping):
                yield f"{key}: is a table; give a dict"
                continue
            table = getattr(message, name)
            table.SetInParent()
            yield from _fill(table, value, f"{key}.")
        else:
            yield from _set(message, field, key, value)


def _set(message: Message, field: Any, key: str, value: Any) -> Iterator[str]:
    """Sets one field (a FieldDescriptor of any of protobuf's implementations) that is no message. Gives the mistake, if there is one."""
    if field.enum_type is not None:
        names = [word(field.enum_type, number) for number in field.enum_type.values_by_number if number != 0]
        if not isinstance(value, str) or value not in names:
            yield f"{key}: {value!r} is not one of {', '.join(names)}"
            return
        number = field.enum_type.values_by_name[_prefix(field.enum_type) + value.upper()].number
        setattr(message, field.name, number)
        return
    # Numbers of NumPy are numbers, too; for Python True is one.
    kinds: dict[int, tuple[type, type, str]] = {
        FieldDescriptor.CPPTYPE_STRING: (str, str, "a text"),
        FieldDescriptor.CPPTYPE_BOOL: (bool, bool, "True or False"),
        FieldDescriptor.CPPTYPE_DOUBLE: (numbers.Real, float, "a number"),
    }
    accepted, kind, wanted = kinds.get(field.cpp_type, (numbers.Integral, int, "a whole number, 0 or more"))
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    try:
        if fits:
            setattr(message, field.name, kind(value))
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        yield f"{key}: {value!r} is not {wanted}"


def _nearest(name: str, fields: Iterable[str]) -> str:
    known = [field for field in fields if field not in _NOT_WRITTEN]
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"
