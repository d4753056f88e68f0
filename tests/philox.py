"""Philox-4x64 in ten rounds (Salmon et al. 2011, section 3.2), on Python integers."""

WORD = (1 << 64) - 1


def block(key: int, counter: int) -> list[int]:
    """Four words."""
    c, k = [counter >> 64 * i & WORD for i in range(4)], [key & WORD, key >> 64]
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 1 << 64)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], 1 << 64)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
    return c


def words(key: int, count: int) -> list[int]:
    """The first words of a stream; numpy's begins with the block after its counter."""
    return [word for n in range(1, count // 4 + 2) for word in block(key, n)][:count]
