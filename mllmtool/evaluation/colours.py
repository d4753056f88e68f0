"""Colours of deltas: blue for gains, orange for losses, told apart by any colour vision."""

Channels = tuple[int, int, int]  # red, green, blue, 0 to 255

INK, FAINT, RULE = "#1f2933", "#66727f", "#d9dee3"
GAIN, LOSS = (0x21, 0x66, 0xAC), (0xC2, 0x57, 0x0C)
FULL = 0.5  # the delta from which a colour is at its strongest, in every report
STEEP = 0.65  # below 1: small losses show
DARK = 0.2234  # the luminance under which white text has more contrast than ink


def shade(delta: float) -> str:
    """Background of a delta, `#rrggbb`: white at none."""
    return hexadecimal(_mixed(delta))


def ink(delta: float) -> str:
    """Text colour on `shade(delta)`."""
    red, green, blue = (_linear(channel / 255) for channel in _mixed(delta))
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < DARK else INK


def hexadecimal(channels: Channels) -> str:
    """`#rrggbb`."""
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _linear(channel: float) -> float:
    """Light of an sRGB channel, both 0 to 1."""
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)


def _mixed(delta: float) -> Channels:
    strength = min(1.0, abs(delta) / FULL) ** STEEP
    red, green, blue = (
        round(255 + (end - 255) * strength) for end in (GAIN if delta > 0 else LOSS)
    )
    return red, green, blue
