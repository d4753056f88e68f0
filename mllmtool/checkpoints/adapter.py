r"""LoRA adapters as PEFT saves them, read as the checkpoint that merging them would give.

`adapter_model.safetensors` holds for a module `base_model.model.PATH.lora_A.weight` (r, in) and
`lora_B.weight` (out, r): $W' = W + s B A$, s = alpha / r, or alpha / $\sqrt r$ (rsLoRA). With a
`lora_magnitude_vector` m (DoRA) each row of W' is then brought to the norm that m gives. Of an
embedding (`lora_embedding_A`, `_B`) and with `fan_in_fan_out` the product is transposed. Any other
key (`modules_to_save`, biases) replaces its tensor whole. PEFT is not loaded; what changes the base
in a way that is not listed here is refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mllmtool.checkpoints.dtypes import DTYPES, Array, widen
from mllmtool.checkpoints.naming import EMBEDDINGS, HEAD, by_canonical, canonical, tied
from mllmtool.checkpoints.reader import Checkpoint, TensorInfo, places_in
from mllmtool.errors import CheckpointError, MismatchError, some
from mllmtool.reports import file_sha256

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
ROLES = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
KEY = re.compile(rf"^(.+)\.({'|'.join(ROLES)})(\.weight|\.bias)?$")
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # the others change the base
REFUSED = (  # settings under which W' is another formula
    *("use_qalora", "use_bdlora", "layer_replication", "target_parameters", "kasa_config"),
    *("alora_invocation_tokens", "arrow_config", "monteclora_config", "trainable_token_indices"),
)


@dataclass
class Low:
    """What an adapter does to one weight: names of its tensors by their role, and the factor s."""

    path: str
    keys: dict[str, str] = field(default_factory=dict)
    scale: float = 1.0
    transposed: bool = False


class AdaptedCheckpoint(Checkpoint):
    """A base with an adapter merged into it, under the base's names, reckoned as it is read.

    Adapted tensors are float32, as nothing is rounded to the base's dtype.
    """

    def __init__(self, base: Checkpoint, path: str | Path) -> None:
        """Read the config and the headers, and line them up with the base.

        Raises:
            CheckpointError: no whole adapter, or one of a kind that is not known.
            MismatchError: it adapts what the base does not have, or in another shape.
        """
        super().__init__(base.path, base.places)
        self._changed: set[str] = set()
        self.base, self.path = base, Path(path)
        self.adapter_config = _config(self.path)
        self._weights = Checkpoint(self.path, places_in(self.path / WEIGHTS))
        self._low: dict[str, Low] = {}
        self._whole: dict[str, str] = {}
        names = by_canonical(base.names, base.path)
        for key in self._weights.names:
            self._sort_in(key, names)
        self._changed = {*self._low, *self._whole}
        for name, low in self._low.items():
            self._check(name, low)
        self._check_tied(names)
        self._factors = lru_cache(maxsize=8)(self._load)

    @property
    def folder(self) -> Path:
        """The base's."""
        return self.base.folder

    @property
    def config(self) -> dict[str, Any]:
        """The base's `config.json`."""
        return self.base.config

    @property
    def adapted(self) -> tuple[str, ...]:
        """Names of the tensors that differ from the base."""
        return tuple(sorted(self._changed))

    def info(self, name: str) -> TensorInfo:
        """As in the base, but adapted tensors are F32."""
        info = super().info(name)
        return TensorInfo("F32", info.shape) if name in self._changed else info

    def blake3(self, name: str) -> str:
        """Hash of the tensor as it is read here."""
        return super().blake3(name) if name in self._changed else self.base.blake3(name)

    def fingerprint(self) -> str:
        """Hash of the adapter's weights."""
        return file_sha256(self.path / WEIGHTS)

    def product(self, name: str) -> tuple[Array, Array] | None:
        """What is added to a matrix, as (rows, r) times (r, columns) in float64.

        None where it is no such product: of what is not adapted or replaced whole, and of DoRA.
        """
        factors = self._factors(name) if name in self._low and name not in self._whole else {}
        if factors.keys() != {"left", "right"}:
            return None
        return self._low[name].scale * factors["left"], factors["right"]

    def _fill(self, name: str, first: int, entries: Array) -> None:
        if name not in self._changed:
            super()._fill(name, first, entries)
        elif name not in self._low:
            entries[:] = self._before(name, first, entries.size)
        else:
            columns = self.info(name).size // self.info(name).shape[0]
            begin, end = first // columns, -(-(first + entries.size) // columns)
            rows = self._before(name, begin * columns, (end - begin) * columns).astype(np.float64)
            merged = self._merged(name, rows.reshape(-1, columns), begin).reshape(-1)
            entries[:] = merged[first - begin * columns :][: entries.size]

    def _before(self, name: str, first: int, count: int) -> Array:
        """The entries of a tensor that changes, with no product added to them yet."""
        if name in self._whole:
            key = self._whole[name]
            entries, dtype = self._weights.read(key, first, count), self._weights.info(key).dtype
        else:
            dtype = self.base.info(name).dtype
            entries = np.empty(count, DTYPES[dtype].stored)
            super()._fill(name, first, entries)
        return widen(entries, dtype, np.float32)

    def _merged(self, name: str, rows: Array, begin: int) -> Array:
        """Rows of W' from rows of W, (n, columns) from row `begin` on; of a bias (n, 1)."""
        low, factors = self._low[name], self._factors(name)
        if "bias" in factors:
            return rows + low.scale * factors["bias"][begin : begin + len(rows), None]
        left, right = factors["left"][begin : begin + len(rows)], factors["right"]
        # not BLAS, whose sums depend on how many rows there are
        merged: Array = rows + low.scale * np.einsum("nr,rc->nc", left, right)
        if "magnitude" in factors:
            norms = np.sqrt(np.einsum("nc,nc->n", merged, merged))
            merged *= (factors["magnitude"][begin : begin + len(rows)] / norms)[:, None]
        return merged

    def _load(self, name: str) -> dict[str, Array]:
        low = self._low[name]
        if "bias" in low.keys:
            return {"bias": self._number(low.keys["bias"])}
        right, left = (self._number(low.keys[role]) for role in ("A", "B"))
        right, left = right.reshape(len(right), -1), left.reshape(len(left), -1)
        if low.transposed:
            left, right = right.T, left.T
        factors: dict[str, Array] = {"left": left, "right": right}
        if "magnitude" in low.keys:
            factors["magnitude"] = self._number(low.keys["magnitude"]).reshape(-1)
        return factors

    def _number(self, key: str) -> Array:
        info = self._weights.info(key)
        return widen(self._weights.read(key), info.dtype, np.float64).reshape(info.shape)

    def _sort_in(self, key: str, names: Mapping[str, str]) -> None:
        """Note which tensor of the base a key of the adapter is for."""
        plain = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        found = KEY.match(plain)
        if not found:
            name = self._in_base(key, plain, names)
            ours, theirs = self.base.info(name).shape, self._weights.info(key).shape
            if ours != theirs:
                raise MismatchError(
                    f"{name}: shape {theirs} in {self.path}, {ours} in {self.base.path}"
                )
            self._whole[name] = key
            return
        path, role, ending = found.groups()
        kind = (
            "bias" if ending == ".bias" else role.removeprefix("lora_").removeprefix("embedding_")
        )
        ending = ".bias" if kind == "bias" else ".weight"
        name = self._in_base(key, path + ending, names)
        low = self._low.setdefault(name, Low(path))
        low.keys[kind.removesuffix("_vector")] = key
        low.transposed |= "embedding" in role or bool(self.adapter_config.get("fan_in_fan_out"))

    def _in_base(self, key: str, name: str, names: Mapping[str, str]) -> str:
        if canonical(name) not in names:
            raise MismatchError(f"{self.path}: {key} is for no tensor of {self.base.path}")
        return names[canonical(name)]

    def _check(self, name: str, low: Low) -> None:
        """Shapes fit; sets the factor of the product."""
        if set(low.keys) not in ({"A", "B"}, {"A", "B", "magnitude"}, {"bias"}):
            raise CheckpointError(f"{self.path}: {low.path}: has only {some(sorted(low.keys))}")
        rank, alpha = (self._pattern(key, low.path) for key in ("rank", "alpha"))
        rs = bool(self.adapter_config.get("use_rslora"))
        low.scale = alpha / (math.sqrt(rank) if rs else rank)
        shape = self.base.info(name).shape
        if low.keys.keys() == {"bias"}:
            if self._weights.info(low.keys["bias"]).shape != shape:
                raise MismatchError(f"{name}: is of another shape than in {self.path}")
            return
        a, b = (self._weights.info(low.keys[role]).shape for role in ("A", "B"))
        if a[0] != rank or b[1] != rank:
            raise CheckpointError(
                f"{self.path}: {low.path}: is of rank {a[0]}, its config says {rank:g}"
            )
        product = (math.prod(a[1:]), b[0]) if low.transposed else (b[0], math.prod(a[1:]))
        if product != (shape[0], math.prod(shape[1:])):
            raise MismatchError(f"{name}: {product} in {self.path}, {shape} in {self.base.path}")
        if "magnitude" in low.keys and (low.transposed or len(shape) != 2):
            raise CheckpointError(
                f"{self.path}: {low.path}: DoRA is read on linear layers only; merge it with PEFT"
            )

    def _pattern(self, what: str, path: str) -> float:
        """The rank or alpha of a module, by the first pattern that its path ends with."""
        patterns = self.adapter_config.get(f"{what}_pattern") or {}
        for pattern, value in patterns.items():
            if re.match(rf"(.*\.)?({pattern})$", path):
                return float(value)
        return float(self.adapter_config["r" if what == "rank" else "lora_alpha"])

    def _check_tied(self, names: Mapping[str, str]) -> None:
        pair = [names[name] for name in (EMBEDDINGS, HEAD) if name in names]
        if len(pair) == 2 and tied(self.base.config):
            changed = [name for name in pair if name in self._changed]
            if len(changed) == 1:
                raise MismatchError(
                    f"{self.path}: adapts {changed[0]}, and {self.base.path} holds a second copy"
                    " of it, as its config ties them; save the base without the copy"
                )


def open_tuned(path: str | Path, base: Checkpoint) -> Checkpoint:
    """Open a checkpoint, or an adapter as the checkpoint that merging it into the base gives.

    Raises:
        CheckpointError: it is neither, or not whole.
        MismatchError: the adapter is for another base.
    """
    return AdaptedCheckpoint(base, path) if is_adapter(path) else Checkpoint.open(path)


def is_adapter(path: str | Path) -> bool:
    """Whether a directory holds an adapter and no checkpoint."""
    path = Path(path)
    return (path / CONFIG).is_file() and not (path / "config.json").exists()


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        kind, start = config["peft_type"], config.get("init_lora_weights")
        float(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}/{CONFIG}: is no config of a LoRA adapter") from error
    if kind != "LORA":
        raise CheckpointError(f"{path}: is of type {kind}; only LoRA, rsLoRA and DoRA are read")
    odd = [key for key in REFUSED if config.get(key)]
    if start not in PLAIN_STARTS:
        odd.append(f"init_lora_weights {start}")
    if odd:
        raise CheckpointError(f"{path}: {some(odd)} is not read; merge it with PEFT first")
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path}: has no {WEIGHTS}")
    loaded: dict[str, Any] = config
    return loaded
