"""Names of files that mean harm: to terminals, spreadsheets, pages, logs, lists and shells."""

from __future__ import annotations

NAMES: tuple[bytes, ...] = tuple(
    name if isinstance(name, bytes) else name.encode()
    for name in (
        "=cmd|' .. C calc'!A0.png",
        "+1+cmd.png",
        "-2+3.png",
        "@SUM(1+1).png",
        "\t=1+1.png",
        "\r=1.png",
        "a\x1b[2J\x1b[31mred.png",
        "a\x1b]0;title\x07.png",
        "a\x9b31mC1.png",
        "new\nline  detected.png",
        "rtl\u202egnp.exe.png",
        "zwsp\u200b\u2066x\u2069.png",
        "<img src=x onerror=alert(1)>.png",
        "\"'><script>alert(1)<&#47;script>.png",
        "]]>.png",
        "{{7*7}}{% raw %}.png",
        "--><x>.png",
        b"bad\xff.png",
        "semi;=1+1.png",
        'comma,"=1+1".png',
        "\u2028ls.png",
        "\ufeff=1.png",
        "\uff1d1+1.png",
        "%0aSet.png",
        "\\x1b literal.png",
        "-h.png",
        "nul.png",
        "x" * 240 + ".png",
        "javascript:alert(1).png",
        "\U000e0041tag.png",
        "\u0430lookalike.png",
    )
)
