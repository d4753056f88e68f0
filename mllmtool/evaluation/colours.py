"""Colours of deltas: blue for gains, orange for losses, told apart by any colour vision."""

Channels = tuple[int, int, int]  # red, green, blue, 0 to 255

INK, FAINT, RULE = "#1f2933", "#66727f", "#d9dee3"
GAIN, LOSS = (0x21, 0x66, 0xAC), (0xC2, 0x57, 0x0C)
WHITE, NIGHT = (0xFF, 0xFF, 0xFF), (0x16, 0x1B, 0x21)  # papers
FULL = 0.5  # the delta from which a colour is at its strongest, in every report
STEEP = 0.65  # below 1: small losses show
DARK = 0.2234  # the luminance under which white text has more contrast than ink


def shade(delta: float, paper: Channels = WHITE) -> str:
    """Background of a delta, `#rrggbb`: the paper's own at none."""
    return hexadecimal(_mixed(delta, paper))


def ink(delta: float, paper: Channels = WHITE) -> str:
    """Text colour on `shade(delta, paper)`."""
    red, green, blue = (_linear(channel / 255) for channel in _mixed(delta, paper))
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < DARK else INK


def heat(delta: float) -> str:
    """Shade and ink by day and by night, as the custom properties that the page's style reads."""
    day, night = f"--d:{shade(delta)};--i:{ink(delta)}", f"--n:{shade(delta, NIGHT)}"
    return f"{day};{night};--o:{ink(delta, NIGHT)}"


def hexadecimal(channels: Channels) -> str:
    """`#rrggbb`."""
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _linear(channel: float) -> float:
    """Light of an sRGB channel, both 0 to 1."""
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)


def _mixed(delta: float, paper: Channels) -> Channels:
    strength = min(1.0, abs(delta) / FULL) ** STEEP
    red, green, blue = (
        round(start + (end - start) * strength)
        for start, end in zip(paper, GAIN if delta > 0 else LOSS, strict=True)
    )
    return red, green, blue
