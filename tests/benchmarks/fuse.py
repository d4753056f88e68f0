"""`fuse` beside mergekit and beside copying the same bytes. Not part of the suite.

    OMP_NUM_THREADS=1 python tests/benchmarks/fuse.py [--mergekit COMMAND] [METHOD ...]

A base and two tuned checkpoints of a small Llama in bfloat16, about 1 GB each in three shards, are
made in a temporary folder and lie in the page cache. Each method runs in a process of its own with
one worker; task-arithmetic also with two. `cat` reads the three and writes one. `--mergekit` is the
`mergekit-yaml` of another environment, and gives the last column. A row: wall and CPU seconds, wall
over that of `cat`, the peak of anonymous memory, and CPU over that of mergekit.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from costs import Cost, measure
from safetensors.numpy import save_file

OURS = ("task-arithmetic", "ties", "dare-ties", "della", "linear", "slerp", "dare", "tailor")
THEIRS: dict[str, tuple[str, dict[str, float]]] = {
    "task-arithmetic": ("task_arithmetic", {}),
    "ties": ("ties", {"density": 0.2}),
    "dare-ties": ("dare_ties", {"density": 0.2}),
    "della": ("della", {"density": 0.5}),
    "linear": ("linear", {}),
    "slerp": ("slerp", {}),
}
FLAGS = {"dare-ties": ["--density", "0.2"], "della": ["--density", "0.5"]}
WIDTH, INNER, WORDS, SHARDS = 1536, 4096, 32000, 3
LAYER = 4 * WIDTH * WIDTH + 3 * WIDTH * INNER + 2 * WIDTH


def main() -> None:
    """Build, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--mergekit")
    parser.add_argument("--folder", help="where to work; must be empty or not exist")
    parser.add_argument("methods", nargs="*", default=OURS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        root = Path(folder)
        for seed, name in enumerate(("base", "a", "b")):
            build(
                root / name,
                max(1, (asked.megabytes * 10**6 - 4 * WORDS * WIDTH) // LAYER // 2),
                seed,
            )
        compare(root, asked.methods, asked.mergekit)


def compare(root: Path, methods: Sequence[str], mergekit: str | None) -> None:
    """Run everything and print a row each."""
    shards = [
        str(path)
        for name in ("base", "a", "b")
        for path in sorted((root / name).glob("*.safetensors"))
    ]
    size = sum(Path(path).stat().st_size for path in shards) / 3e6
    say(f"{size:.0f} MB a checkpoint, load {os.getloadavg()[0]:.1f}\n")
    say(f"{'':20} {'wall s':>7} {'CPU s':>7} {'/ cat':>6} {'MB anon':>8} {'/ mergekit':>10}")
    base, tuned = " ".join(shards[:SHARDS]), " ".join(shards[SHARDS:])
    script = f"cat {base} > {root}/copy; cat {tuned} | cat > /dev/null; rm {root}/copy"
    copying = measure(["sh", "-c", script])
    say(row("cat", copying, copying, None))
    for method in methods:
        theirs = None
        if mergekit and method in THEIRS:
            theirs = measure(peer(root, method, mergekit))
            say(row(f"mergekit {THEIRS[method][0]}", theirs, copying, None))
            remove(root / "out")
        for workers in (1, 2) if method == "task-arithmetic" else (1,):
            ours = measure(fuse(root, method, workers))
            say(row(f"{method} x{workers}", ours, copying, theirs))
            remove(root / "out")


def build(path: Path, layers: int, seed: int) -> None:
    """Normal weights of deviation 0.02, the same in all; models add noise of 0.001."""
    path.mkdir()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": WORDS,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "tie_word_embeddings": False,
    }
    (path / "config.json").write_text(json.dumps(config))
    shapes = shapes_of(layers)
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    names = sorted(shapes)
    places: dict[str, str] = {}
    for shard in range(SHARDS):
        tensors = {}
        for name in names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]:
            values = 0.02 * common.standard_normal(shapes[name], np.float32)
            if seed:
                values += 0.001 * own.standard_normal(shapes[name], np.float32)
            tensors[name] = (values.view(np.uint32) >> 16).astype(np.uint16)
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        save_file(tensors, path / file, metadata={"format": "pt"})
        as_bfloat16(path / file)
        places |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def shapes_of(layers: int) -> dict[str, tuple[int, ...]]:
    """Of a Llama's tensors."""
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (WIDTH,)}
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        shapes[name] = (WORDS, WIDTH)
    block: dict[str, tuple[int, ...]] = {"mlp.down_proj": (WIDTH, INNER)}
    block |= {f"mlp.{name}_proj": (INNER, WIDTH) for name in ("gate", "up")}
    block |= {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"}
    block |= {f"{name}_layernorm": (WIDTH,) for name in ("input", "post_attention")}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def as_bfloat16(path: Path) -> None:
    """Let the header call the bits what they are; numpy has no such type."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end].replace(b'"U16"', b'"BF16"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


def fuse(root: Path, method: str, workers: int) -> list[str]:
    """Our command line."""
    models = [word for name in ("a", "b") for word in ("--model", f"{root}/{name}")]
    return [
        *(sys.executable, "-m", "mllmtool", "fuse", "--base", f"{root}/base", *models),
        *("--method", method, "--out", f"{root}/out", "--quiet", "--workers", str(workers)),
        *FLAGS.get(method, []),
    ]


def peer(root: Path, method: str, command: str) -> list[str]:
    """Theirs: the math in float32, the output in bfloat16, as ours."""
    name, numbers = THEIRS[method]
    models = [
        {"model": f"{root}/{model}", "parameters": {"weight": 0.5, **numbers}} for model in "ab"
    ]
    recipe: dict[str, Any] = {
        "merge_method": name,
        "models": models,
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    if name == "slerp":
        recipe |= {"parameters": {"t": 0.5}, "base_model": f"{root}/a"}
    elif name != "linear":
        recipe["base_model"] = f"{root}/base"
    (root / "peer.json").write_text(json.dumps(recipe))  # JSON is YAML
    return [command, f"{root}/peer.json", f"{root}/out"]


def row(name: str, cost: Cost, copying: Cost, theirs: Cost | None) -> str:
    """A line of the table."""
    ratio = f"{cost.cpu / theirs.cpu:10.3f}" if theirs else ""
    start = f"{name:24} {cost.wall:7.2f} {cost.cpu:7.2f} {cost.wall / copying.wall:6.1f}"
    return f"{start} {cost.anonymous:8.0f} {ratio}"


def remove(folder: Path) -> None:
    """What a run made, so that the disk holds one output at a time."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def say(line: str) -> None:
    """At once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
