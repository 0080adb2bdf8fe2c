"""Everything that is to be measured on a GPU, in one command.

    python -m benchmarks.gpu [--device cuda|cpu] [--scale full|small] [--parts a,b] [--print]

Parts:

    a  conformance: errors of Triton's kernels against the reference in float64, at boxes 64, 128 and 129
    b  speed of each kernel against its floor of bytes and the measured copy bandwidth, at boxes 64, 128 and 256, and of
       torch-projectors if it is installed
    c  whole fits of 100,000 images of 128 px, cold, warm and with --refine-poses: seconds of every stage, peak memory
    d  scores of a fit of 10,000 images of 64 px on the device against those on the CPU
    e  the fit of c within 4 GB of the GPU's memory
    t  speed of each kernel for several sizes of its tiles

Parts a and b are the default. Needs only torch, Triton, NumPy, Numba, SciPy and tqdm. With --device cpu the kernels run
in Triton's interpreter, slowly: together with --scale small it tries the script itself where no card is.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.common import engine_commit, machine, publish, script_parser

DEFAULT_PARTS = "a,b"


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--scale", choices=("full", "small"), default="full", help="small: to try the script")
    parser.add_argument("--parts", default=DEFAULT_PARTS, help="letters, with commas between them")
    return parser.parse_args()


def known_parts() -> dict[str, Callable[[str, bool], str]]:
    """What makes the text of each part, from a device and whether the scale is full."""
    from benchmarks.gpu_fits import accuracy, small_budget, whole_fits
    from benchmarks.gpu_kernels import conformance, kernel_speed, tile_speed

    return {
        "a": conformance, "b": kernel_speed, "c": whole_fits, "d": accuracy, "e": small_budget, "t": tile_speed,
    }  # fmt: skip


def card(device: str) -> str:
    """Name of the card, its driver and the libraries, in a phrase."""
    import torch
    import triton

    libraries = f"torch {torch.__version__}, Triton {triton.__version__}"
    if device == "cpu":
        return f"{machine()}, Triton's interpreter, {libraries}"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0].strip()
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB, driver {driver or 'unknown'}, {libraries}"


def main() -> None:
    arguments = parse_arguments()
    if arguments.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device is there: try the script with --device cpu --scale small")
    torch.backends.cuda.matmul.allow_tf32 = False
    parts, asked = known_parts(), arguments.parts.split(",")
    unknown = [part for part in asked if part not in parts]
    if unknown:
        sys.exit(f"unknown part {unknown[0]!r}, expected some of {', '.join(parts)}")
    commit = engine_commit()
    texts = [f"{datetime.date.today().isoformat()}, engine at commit {commit}, {card(arguments.device)}."]
    print(texts[0], flush=True)
    for part in asked:
        start = time.perf_counter()
        text = parts[part](arguments.device, arguments.scale == "full")
        texts.append(f"{text}\n\nPart {part} took {time.perf_counter() - start:.0f} s.")
        print(f"\n{texts[-1]}", flush=True)
    if not arguments.print:
        publish(f"gpu {arguments.device} {arguments.scale} {arguments.parts} {commit}", "\n\n".join(texts))


if __name__ == "__main__":
    main()
