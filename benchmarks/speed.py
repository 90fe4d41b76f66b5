"""The same crop through sslcst and others: seconds, CPU seconds and peak memory of each, in a process of its own.

    python benchmarks/speed.py [--data ../shared] [--crop breast] [--proseg BINARY] [--comseg PYTHON]
        [--cellpose PYTHON,model=FILE] [--threads 1] [--out FOLDER]

The crop is a field of cells.py, by default the breast, which has its stain. Nuclei are given to all that take them:
sslcst finds them in a row of its own, and Cellpose segments the stain and nothing more. Environments of the others are
those of peers.py, and for Cellpose 3 ``pip install "cellpose<4"``. Seconds are from the call to labels in memory,
imports and compiled code from the cache included; CPU seconds and memory are those of the whole process. Prints a table
in Markdown; what is not named is not run, and says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from cells import fields
from peers import ADAPTERS, Result, Tissue, cost, owner_of, run, tissue_of
from real_cells import make_stores

from sslcst.metrics import n_cells

HEADER = "| method | cells | s | CPU, s | peak, GiB |\n|---|---|---|---|---|"


def crop_of(data: Path, name: str) -> Tissue:
    """The field, with its stain where it has one."""
    tissue = tissue_of(next(fields(data, [name])))
    if name == "breast":
        stained = make_stores(data).breast(data / "data" / "xenium_breast")
        return replace(tissue, image=np.asarray(stained["dapi"])[0])
    return tissue


def calls_of(args: argparse.Namespace, has_stain: bool) -> dict[str, tuple[str, tuple[str, ...] | None, str]]:
    """Of each row the adapter, how it is called, and which option it needs."""
    own = (sys.executable,)
    calls = {f"sslcst, {method}": ("sslcst", (*own, f"method={method}"), "") for method in ("density", "network")}
    if has_stain:
        stained = (*own, "method=network", "nuclei=stain")
        calls["sslcst, network, nuclei found in the stain too"] = ("sslcst", stained, "")
    proseg = args.proseg and (*own, f"binary={Path(args.proseg).resolve()}", f"threads={args.threads}")
    calls["proseg"] = ("proseg", proseg, "--proseg BINARY")
    calls["ComSeg"] = ("comseg", args.comseg and tuple(args.comseg.split(",")), "--comseg PYTHON")
    if has_stain:
        cellpose = args.cellpose and tuple(args.cellpose.split(","))
        calls["Cellpose on the stain, no transcripts"] = ("cellpose", cellpose, "--cellpose PYTHON,model=FILE")
    return calls


def row(tissue: Tissue, method: str, result: Result) -> str:
    if result.failure:
        return f"| {method} | {result.failure} | | | |"
    return f"| {method} | {n_cells(owner_of(tissue, result))} | {cost(result)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--crop", default="breast", help="name of a field of cells.py")
    parser.add_argument("--proseg", metavar="BINARY")
    parser.add_argument("--comseg", metavar="PYTHON")
    parser.add_argument("--cellpose", metavar="PYTHON,model=FILE")
    parser.add_argument("--threads", type=int, default=1, help="of proseg; torch has one in all others")
    parser.add_argument("--out", type=Path, help="where results are kept, and not computed again")
    args = parser.parse_args()
    tissue = crop_of(args.data, args.crop)
    side = " x ".join(f"{n * tissue.pixel_size:.0f}" for n in tissue.nuclei.shape)
    print(f"{tissue.name}: {side} micron, {n_cells(tissue.nuclei.ravel())} nuclei, {len(tissue.yx):,} transcripts; "
          f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n")  # fmt: skip
    print(HEADER)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for method, (name, call, option) in calls_of(args, tissue.image is not None).items():
            if call is None:
                result = Result(failure=f"not run: give {option}")
            else:
                result = run(ADAPTERS / f"run_{name}.py", call[0], tissue, call[1:], folder)
            print(row(tissue, method, result), flush=True)


if __name__ == "__main__":
    main()
