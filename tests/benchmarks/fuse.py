"""How fast `fuse` is, beside copying the bytes that it reads and writes. Not part of the suite.

    OMP_NUM_THREADS=1 python tests/benchmarks/fuse.py [MEGABYTES]

A base and two tuned checkpoints in bfloat16 are made in a temporary folder, with the shapes of a
small Llama, and each method runs once in a process of its own on files that are in the page cache.
`copying` reads the three and writes one, with `cat`. A row: wall and CPU seconds, wall seconds over
copying's, megabytes read and written a CPU second, and the peak of anonymous memory.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

METHODS = ("task-arithmetic", "ties", "dare", "linear", "slerp", "tailor")
WIDTH, LAYERS_BYTES = 1024, 8 * 1024 * 1024 * 2


def main() -> None:
    """Build, run, print."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for seed, name in enumerate(("base", "a", "b")):
            build(root / name, megabytes * 1_000_000 // LAYERS_BYTES, seed)
            build(root / f"tiny-{name}", 0, seed)
        paths = [str(root / name / "model.safetensors") for name in ("base", "a", "b")]
        size = Path(paths[0]).stat().st_size / 1e6
        sys.stdout.write(f"{size:.0f} MB a checkpoint, load {os.getloadavg()[0]:.1f}\n\n")
        sys.stdout.write(
            f"{'':16} {'wall s':>7} {'CPU s':>7} {'copies':>7} {'MB/CPU s':>9} MB anon\n"
        )
        script = f"cat {paths[0]} > {root}/copy; cat {paths[1]} {paths[2]} | cat > /dev/null"
        copying = row("copying", ["sh", "-c", script], 4 * size, None)
        row("a tiny fuse", fuse(root, "ties", "tiny-"), 0, copying)
        for method in METHODS:
            row(method, fuse(root, method), 4 * size, copying)


def build(path: Path, layers: int, seed: int) -> None:
    """Normal weights of deviation 0.02, the same in all; models add noise of 0.001."""
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    shapes = {"lm_head.weight": (100, 16), "model.norm.weight": (WIDTH,)}
    for i in range(layers):
        for name, rows in (("q", 1), ("k", 1), ("v", 1), ("o", 1), ("gate", 2), ("up", 2)):
            shapes[f"model.layers.{i}.{name}.weight"] = (rows * WIDTH, WIDTH)
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = 0.02 * common.standard_normal(shape, np.float32)
        if seed:
            values += 0.001 * own.standard_normal(shape, np.float32)
        tensors[name] = (values.view(np.uint32) >> 16).astype(np.uint16)
    save_file(tensors, path / "model.safetensors")
    as_bfloat16(path / "model.safetensors")


def as_bfloat16(path: Path) -> None:
    """Let the header call the bits what they are; numpy has no such type."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end].replace(b'"U16"', b'"BF16"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


def fuse(root: Path, method: str, prefix: str = "") -> list[str]:
    """The command line."""
    models = [word for name in ("a", "b") for word in ("--model", f"{root}/{prefix}{name}")]
    return [
        *(sys.executable, "-m", "mllmtool", "fuse", "--base", f"{root}/{prefix}base", *models),
        *("--method", method, "--out", f"{root}/{prefix}{method}", "--quiet"),
    ]


def row(name: str, argv: Sequence[str], megabytes: float, copying: float | None) -> float:
    """Run and print; returns wall seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.01)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{name}: exit status {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    ratio = f"{wall / copying:7.1f}" if copying and megabytes else " " * 7
    pace = f"{megabytes / cpu:9.0f}" if megabytes else " " * 9
    sys.stdout.write(f"{name:16} {wall:7.2f} {cpu:7.2f} {ratio} {pace} {peak:7.0f}\n")
    sys.stdout.flush()
    return wall


def anonymous(process: int) -> float:
    """Megabytes of anonymous memory of a live process, 0 where that is not told."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon")), None)
    return int(line.split()[1]) / 1000 if line else 0


if __name__ == "__main__":
    main()
