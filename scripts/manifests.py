#!/usr/bin/env python3
"""Renders and validates Kubernetes manifests for the tests. It runs in the environment that `make deploy-tools` makes.

    manifests.py render DIR          the objects that `kubectl kustomize DIR` prints, as a JSON list
    manifests.py yaml FILE           a YAML file as JSON
    manifests.py validate VERSION    reads such a list from standard input and compares each object strictly with the
                                     schema of that version of Kubernetes; prints {"valid": [kinds], "unvalidated":
                                     [kinds that it has no schema for], "errors": [texts]}
"""

import json
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml


def main(arguments):
    match arguments:
        case ["render", folder]:
            kubectl = Path(sys.executable).parent / "kubectl"
            text = subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True).stdout
            print(json.dumps(list(yaml.safe_load_all(text))))
        case ["yaml", file]:
            print(json.dumps(yaml.safe_load(Path(file).read_text())))
        case ["validate", version]:
            print(json.dumps(validate(json.load(sys.stdin), version)))
        case _:
            sys.exit(__doc__)


def validate(objects, version):
    result = {"valid": [], "unvalidated": [], "errors": []}
    for thing in objects:
        kind = f"{thing['apiVersion']} {thing['kind']}"
        name = f"{kind} {thing['metadata']['name']}"
        try:
            kubernetes_validate.validate(thing, version, strict=True)
            result["valid"].append(kind)
        except kubernetes_validate.SchemaNotFoundError:
            result["unvalidated"].append(kind)
        except kubernetes_validate.ValidationError as error:
            where = "/".join(str(part) for part in error.path)
            result["errors"].append(f"{name}: {where}: {error.message}")
    return result


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
