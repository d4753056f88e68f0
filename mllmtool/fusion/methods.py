"""The table of fusion methods."""

from mllmtool.configs.fuse import FuseConfig, FuseMethod
from mllmtool.errors import ConfigError
from mllmtool.fusion.interpolation import linear, slerp, wise_ft
from mllmtool.fusion.method import Method, Settings
from mllmtool.fusion.task_vectors import dare, tailor, task_arithmetic, ties

METHODS: dict[FuseMethod, Method] = {
    "linear": Method(
        linear,
        paper="Wortsman et al. 2022, Model soups",
        defaults="equal weights: the uniform soup",
        weight=1.0,
        shares=True,
    ),
    "wise-ft": Method(
        wise_ft,
        paper="Wortsman et al. 2022, Robust fine-tuning of zero-shot models",
        defaults="scale 0.5: the paper's choice without validation",
        scale=0.5,
        scale_is_share=True,
        num_models=1,
    ),
    "task-arithmetic": Method(
        task_arithmetic,
        paper="Ilharco et al. 2023, Editing models with task arithmetic",
        defaults="scale 0.4: the value without validation in the TIES paper's comparison",
        weight=1.0,
        scale=0.4,
    ),
    "ties": Method(
        ties,
        paper="Yadav et al. 2023, TIES-Merging",
        defaults="density 0.2, scale 1: the paper's values without validation",
        density=0.2,
        scale=1.0,
    ),
    "dare": Method(
        dare,
        paper="Yu et al. 2024, Language models are super Mario",
        defaults="density 0.1: the paper's drop rate of 0.9; scale 1",
        weight=1.0,
        density=0.1,
        scale=1.0,
    ),
    "slerp": Method(
        slerp,
        paper="Shoemake 1985, Animating rotation with quaternion curves",
        defaults="equal weights: half way",
        weight=1.0,
        shares=True,
        num_models=2,
    ),
    "tailor": Method(
        tailor,
        paper="Zhu et al. 2024, Model Tailor, multi-task fusion",
        defaults="scale 1",
        scale=1.0,
    ),
}


def settings_for(config: FuseConfig) -> Settings:
    """What the method reads: as asked for, else its defaults.

    Raises:
        ConfigError: a flag that the method does not read, or a value that it cannot take.
    """
    method = METHODS[config.method]
    _check_flags(config, method)
    num_models = len(config.model)
    if method.num_models not in (None, num_models):
        raise ConfigError(
            f"--model: {config.method} takes exactly {method.num_models}, {num_models} given"
        )
    if method.shares and config.weight and (min(config.weight) < 0 or sum(config.weight) == 0):
        raise ConfigError(f"--weight: {config.method} takes shares, none below 0 and not all 0")
    if method.scale_is_share and config.scale is not None and not 0 <= config.scale <= 1:
        raise ConfigError(f"--scale: {config.scale:g} is outside 0 to 1 for {config.method}")
    weights = None if method.weight is None else (method.weight,) * num_models
    return Settings(
        weights=config.weight or weights,
        density=method.density if config.density is None else config.density,
        scale=method.scale if config.scale is None else config.scale,
    )


def _check_flags(config: FuseConfig, method: Method) -> None:
    given = {"weight": config.weight or None, "density": config.density, "scale": config.scale}
    for flag, value in given.items():
        if value is not None and getattr(method, flag) is None:
            readers = [name for name, row in METHODS.items() if getattr(row, flag) is not None]
            raise ConfigError(
                f"--{flag}: {config.method} does not read it; {', '.join(readers)} do"
            )
