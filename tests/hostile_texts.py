"""Texts that break careless programs: markup, Markdown, LaTeX, terminal codes, invisible and reordering signs, many
scripts."""

import itertools

_FRAGMENTS = {
    "script": "<script>window.__broken = 1</script>",
    "image": '<img src=x onerror="window.__broken = 2">',
    "svg": "<svg/onload='window.__broken = 3'>",
    "comment": "<!-- --><![CDATA[ ]]>&lt;&amp;&#x27;",
    "style": "</style><style>*{display:none}</style>",
    "template": "${7*7} {{7*7}} %s {0} \\x00 \\u0000",
    "markdown": "**bold** _it_ [link](javascript:alert(1)) ![i](x) # h\n> quote\n```\ncode\n```",
    "streamlit": ":material/home: :red[text] :smile: <b>x</b>",
    "latex": "$x^2$ \\(\\frac{a}{b}\\) \\begin{document} $$\\sum$$",
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07",
    "controls": "a\x01b\x02c\x07d\x08e\x0bf\x0cg\x7fh\x85i\x9fj",
    "lines": "one\r\ntwo\rthree\n\n\nfour\u2028five\u2029six\x0bseven",
    "blanks": " \t\u00a0\u2003\u202f\u3000 x \t ",
    "zero width": "z\u200be\u200cr\u200do\u2060w\ufeffi\u00add\u034ft\u180eh",
    "override": "abc\u202edef\u202c ghi \u2067jkl\u2069 \u202amno\u202c \u200epqr\u200f",
    "open override": "left \u202eright and never closed \u2066",
    "hebrew": "שלום עולם, 123 abc",
    "arabic": "مرحبا بالعالم ١٢٣",
    "devanagari": "नमस्ते दुनिया क्ष",
    "thai": "สวัสดีชาวโลก กำลัง",
    "chinese": "你好，世界。漢字𠀀𪚥",
    "japanese": "こんにちは、ﾊﾝｶｸ、㍿",
    "korean": "안녕하세요 각각",
    "combining": "e\u0301 a\u0300\u0316\u0359 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤A̴̵̜̰͔ͫ͗͢L",
    "emoji": "😀 👩\u200d💻 👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇩🇪🇫🇷 👍🏽 1️⃣",
    "tags": "flag 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "private": "\ue000\uf8ff\U000f0000\U0010fffd\ufffd\ufffe\uffff",
    "long word": "x" * 300,
    "sql": "'; DROP TABLE documents; -- \" ` \\",
    "paths": "../../etc/passwd %2e%2e%2f file:///x C:\\x",
    "formula": "=cmd|' /C calc'!A0 +1 -1 @x",
    "maths": "𝕳𝖊𝖑𝖑𝖔 ﬁ ½ ①",
}
_FRAMES = (
    "{}",
    "At first {} and then more.",
    "{}\n",
    "\n\n{}",
    "  {}  ",
    "({})",
    "\u202e{}",
    "{}\u0301",
    "\u200b{}\u200b",
    "{0}{0}",
    "word\t{}\tword",
    "<b>{}</b>",
    "`{}`",
    "{}\x01",
    "𠀀{}😀",
    "[{}](x)",
)


def hostile_texts() -> list[str]:
    """More than 500 different texts: every fragment in every frame, and neighbours run together."""
    framed = [frame.format(text) for frame, text in itertools.product(_FRAMES, _FRAGMENTS.values())]
    joined = [a + b for a, b in itertools.pairwise(_FRAGMENTS.values())]
    return list(dict.fromkeys(framed + joined))
