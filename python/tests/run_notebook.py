#!/usr/bin/env python3
"""Runs the code cells of a notebook in order, in one namespace, and prints what Jupyter would show: what a cell prints, and the
value of its last line.

    run_notebook.py NOTEBOOK

It ends with an error at the first cell that raises one, and for a notebook that was committed with its outputs.
"""

import ast
import json
import sys
from pathlib import Path
from typing import Any


def run(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Runs one cell."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        if value is not None:
            print(repr(value), flush=True)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    notebook = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if not cells:
        sys.exit(f"{sys.argv[1]} has no code")
    if any(cell["outputs"] or cell["execution_count"] is not None for cell in cells):
        sys.exit(f"{sys.argv[1]} has outputs: clear them before it is committed")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        run("".join(cell["source"]), f"cell {number}", namespace)


if __name__ == "__main__":
    main()
