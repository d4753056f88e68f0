"""Colours of deltas: blue for gains, orange for losses, told apart by any colour vision."""

INK, FAINT, RULE = "#1f2933", "#66727f", "#d9dee3"
GAIN, LOSS, WHITE = (0x21, 0x66, 0xAC), (0xC2, 0x57, 0x0C), (0xFF, 0xFF, 0xFF)
FULL = 0.5  # the delta from which a colour is at its strongest, in every report
STEEP = 0.65  # below 1: small losses show
DARK = 0.6  # from this strength on, text on the colour is white


def shade(delta: float) -> str:
    """Background of a delta, `#rrggbb`."""
    end, strength = GAIN if delta > 0 else LOSS, _strength(delta)
    mixed = (round(w + (c - w) * strength) for w, c in zip(WHITE, end, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def ink(delta: float) -> str:
    """Text colour on `shade(delta)`."""
    return "#ffffff" if _strength(delta) > DARK else INK


def hexadecimal(channels: tuple[int, int, int]) -> str:
    """`#rrggbb`."""
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _strength(delta: float) -> float:
    strength: float = min(1.0, abs(delta) / FULL) ** STEEP
    return strength
