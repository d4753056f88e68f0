"""The table of fusion methods."""

from typing import Any

from mllmtool.configs.fuse import FuseConfig, FuseMethod
from mllmtool.errors import ConfigError, some
from mllmtool.fusion.averaging import fisher, is_part, regmean
from mllmtool.fusion.compat import ROWS as MERGEKIT
from mllmtool.fusion.competition import pcb
from mllmtool.fusion.interference import optmerge, wudi
from mllmtool.fusion.interpolation import is_share, linear, slerp, wise_ft
from mllmtool.fusion.knots import knots
from mllmtool.fusion.magnitude_sampling import della, has_room
from mllmtool.fusion.masking import breadcrumbs, consensus, has_voters, leaves_room
from mllmtool.fusion.matrices import of_matrices
from mllmtool.fusion.method import Method, at_once
from mllmtool.fusion.settings import NUMBERS, Number, Settings
from mllmtool.fusion.singular_vectors import iso_c, iso_cts, tsv_m
from mllmtool.fusion.stock import model_stock
from mllmtool.fusion.task_vectors import dare, dare_ties, tailor, task_arithmetic, ties

METHODS: dict[FuseMethod, Method] = {
    "linear": Method(
        at_once(linear),
        paper="Wortsman et al. 2022, Model soups",
        defaults="equal weights: the uniform soup",
        reads={"weight": 1.0},
        shares=True,
    ),
    "wise-ft": Method(
        at_once(wise_ft),
        paper="Wortsman et al. 2022, Robust fine-tuning of zero-shot models",
        defaults="scale 0.5: the paper's choice without validation",
        reads={"scale": 0.5},
        check=is_share,
        num_models=1,
    ),
    "task-arithmetic": Method(
        at_once(task_arithmetic),
        paper="Ilharco et al. 2023, Editing models with task arithmetic",
        defaults="scale 0.4: the value without validation in the TIES paper's comparison",
        reads={"weight": 1.0, "scale": 0.4},
    ),
    "ties": Method(
        ties,
        paper="Yadav et al. 2023, TIES-Merging",
        defaults="density 0.2, scale 1: the paper's values without validation",
        reads={"density": 0.2, "scale": 1.0},
        cost=2.1,
    ),
    "dare": Method(
        dare,
        paper="Yu et al. 2024, Language models are super Mario",
        defaults="density 0.1: the paper's drop rate of 0.9; scale 1",
        reads={"weight": 1.0, "density": 0.1, "scale": 1.0},
    ),
    "dare-ties": Method(
        dare_ties,
        paper="Yu et al. 2024, Language models are super Mario",
        defaults="density 0.1: the paper's drop rate of 0.9; scale 1",
        reads={"density": 0.1, "scale": 1.0},
        cost=1.6,
    ),
    "della": Method(
        della,
        paper="Deep et al. 2024, DELLA-Merging",
        defaults="density 0.3, epsilon 0.2: within what the paper searches; scale 1",
        reads={"density": 0.3, "epsilon": 0.2, "scale": 1.0},
        unit="rows",
        check=has_room,
        cost=5.0,
    ),
    "slerp": Method(
        slerp,
        paper="Shoemake 1985, Animating rotation with quaternion curves",
        defaults="equal weights: half way",
        reads={"weight": 1.0},
        shares=True,
        num_models=2,
    ),
    "tailor": Method(
        at_once(tailor),
        paper="Zhu et al. 2024, Model Tailor, multi-task fusion",
        defaults="scale 1",
        reads={"scale": 1.0},
    ),
    "model-stock": Method(
        model_stock,
        paper="Jang et al. 2024, Model Stock",
        defaults="none: the paper has no parameter",
        at_least=2,
    ),
    "breadcrumbs": Method(
        breadcrumbs,
        paper="Davari & Belilovsky 2024, Model Breadcrumbs",
        defaults="density 0.14, gamma 0.01: all but the largest 15 % dropped, and 1 %; scale 0.2",
        reads={"density": 0.14, "gamma": 0.01, "scale": 0.2},
        check=leaves_room,
        cost=2.4,
    ),
    "consensus": Method(
        at_once(consensus),
        paper="Wang et al. 2024, Localizing task information (TALL masks, Consensus)",
        defaults="threshold 0.4: the middle of what the paper searches; votes 2; scale 0.3",
        reads={"threshold": 0.4, "votes": 2, "scale": 0.3},
        at_least=2,
        check=has_voters,
    ),
    "pcb": Method(
        pcb,
        paper="Du et al. 2024, Parameter competition balancing",
        defaults="density 0.1, scale 1.2: the released code's",
        reads={"density": 0.1, "scale": 1.2},
        cost=6.2,
    ),
    "tsv-m": Method(
        of_matrices(tsv_m),
        paper="Gargiulo et al. 2025, Task singular vectors",
        defaults="scale 1: the paper's value without validation",
        reads={"scale": 1.0},
        unit="matrix",
        cost=150.0,
    ),
    "iso-c": Method(
        of_matrices(iso_c),
        paper="Marczak et al. 2025, No task left behind",
        defaults="scale 1; the paper finds it by validation",
        reads={"scale": 1.0},
        unit="matrix",
        cost=37.0,
    ),
    "iso-cts": Method(
        of_matrices(iso_cts),
        paper="Marczak et al. 2025, No task left behind",
        defaults="common 0.8: the paper's; scale 1, which it finds by validation",
        reads={"common": 0.8, "scale": 1.0},
        unit="matrix",
        cost=170.0,
    ),
    "wudi": Method(
        of_matrices(wudi),
        paper="Cheng et al. 2025, WUDI-Merging; its closed form SWUDI, Wei et al. 2026",
        defaults="time 300, rank 0.65, scale 1: the released code's; on multimodal models it takes"
        " time 1300, rank 0.01 and a scale of about one over the number of models",
        reads={"time": 300.0, "rank": 0.65, "scale": 1.0},
        unit="matrix",
        cost=24.0,
    ),
    "optmerge": Method(
        of_matrices(optmerge),
        paper="Wei et al. 2026, OptMerge",
        defaults="scale 1: the released code's",
        reads={"scale": 1.0},
        unit="matrix",
        cost=500.0,
    ),
    "fisher": Method(
        at_once(fisher),
        paper="Matena & Raffel 2022, Merging models with Fisher-weighted averaging",
        defaults="equal weights",
        reads={"weight": 1.0},
        shares=True,
        needs="fisher",
    ),
    "regmean": Method(
        regmean,
        paper="Jin et al. 2023, Dataless knowledge fusion by merging weights",
        defaults="alpha 0.9: the paper's for most models; equal weights",
        reads={"weight": 1.0, "alpha": 0.9},
        unit="matrix",
        shares=True,
        needs="moments",
        check=is_part,
    ),
    "knots": Method(
        knots,
        paper="Stoica et al. 2025, Model merging with SVD to tie the KnOTS",
        defaults="density 0.2, scale 0.6: the released code's for CLIP ViT-B",
        reads={"density": 0.2, "scale": 0.6},
        unit="matrix",
        cost=4.0,  # of adapters
    ),
}


def method_of(config: FuseConfig) -> Method:
    """The row of the method, the paper's or another tool's.

    Raises:
        ConfigError: the other tool's is not known.
    """
    if config.compat is None:
        return METHODS[config.method]
    if config.method not in MERGEKIT:
        raise ConfigError(
            f"--compat: {config.method} is not one that is known of mergekit;"
            f" of use to {some(list(MERGEKIT))}"
        )
    return MERGEKIT[config.method]


def settings_for(config: FuseConfig) -> Settings:
    """What the method reads: as asked for, else its defaults.

    Raises:
        ConfigError: a flag that the method does not read, or a value that it cannot take.
    """
    method = method_of(config)
    _check_flags(config, method)
    _check_models(len(config.model), config, method)
    given = config.weight or (method.reads.get("weight", 1.0),) * len(config.model)
    weights = tuple(weight if isinstance(weight, float) else 1.0 for weight in given)
    numbers = {name: _number(name, config, method) for name in NUMBERS if name in method.reads}
    settings = Settings(weights, **numbers)
    if wrong := method.check(settings):
        raise ConfigError(f"{wrong} for {config.method}")
    if all(isinstance(weight, float) for weight in given):  # else tensor by tensor
        check_shares(config, settings)
    return settings


def check_shares(config: FuseConfig, settings: Settings, where: str = "") -> None:
    """Refuse weights that are no shares where the method takes these.

    Raises:
        ConfigError: one is below 0, or all are 0.
    """
    if method_of(config).shares and (min(settings.weights) < 0 or sum(settings.weights) == 0):
        raise ConfigError(
            f"--weight: {config.method} takes shares, none below 0 and not all 0{where}"
        )


def described(config: FuseConfig, settings: Settings) -> dict[str, Any]:
    """The settings for the report; None for what the method does not read."""
    method = method_of(config)
    weights = config.weight or settings.weights
    found: dict[str, Any] = {"weights": weights if "weight" in method.reads else None}
    for name in NUMBERS:
        found[name] = getattr(settings, name) if name in method.reads else None
    return found


def _number(name: Number, config: FuseConfig, method: Method) -> float:
    given = getattr(config, name)
    return method.reads[name] if given is None else float(given)


def _check_models(count: int, config: FuseConfig, method: Method) -> None:
    if method.num_models not in (None, count):
        raise ConfigError(
            f"--model: {config.method} takes exactly {method.num_models}, {count} given"
        )
    if count < method.at_least:
        raise ConfigError(
            f"--model: {config.method} takes {method.at_least} or more, {count} given"
        )


def _check_flags(config: FuseConfig, method: Method) -> None:
    for flag in ("fisher", "moments"):
        if getattr(config, flag) and method.needs != flag:
            readers = [name for name, row in METHODS.items() if row.needs == flag]
            raise ConfigError(
                f"--{flag}: {config.method} does not read it; of use to {some(readers)}"
            )
    if method.needs and not getattr(config, method.needs):
        raise ConfigError(f"--{method.needs}: {config.method} needs it")
    for flag in ("weight", *NUMBERS):
        if getattr(config, flag) not in (None, ()) and flag not in method.reads:
            readers = [name for name, row in METHODS.items() if flag in row.reads]
            raise ConfigError(
                f"--{flag}: {config.method} does not read it; of use to {some(readers)}"
            )
