"""Figures and log text as HTML, and the document around them."""

from __future__ import annotations

import base64
import html
import unicodedata

LONGEST_NAME = 80
NONE = '<span class="none">–</span>'
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Second line of defence against text from a log: the page may load nothing and run nothing."""


def document(title: str, body: str) -> str:
    """A whole page of its own, with its style inside."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def safe(text: object) -> str:
    """Text from a log as HTML that shows it and does nothing else.

    Control and direction characters become visible, so that a name can neither hide nor reorder what
    stands around it; a long one is cut.

    >>> safe("<b>\\u202egpj.exe")
    '&lt;b&gt;�gpj.exe'
    """
    shown = str(text)
    if len(shown) > LONGEST_NAME:
        shown = shown[: LONGEST_NAME - 1] + "…"
    visible = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in shown)
    return html.escape(visible)


def breakable(name: object) -> str:
    """A name as HTML that breaks behind its underscores, where a narrow column must break it.

    >>> breakable("shadow_synthesis")
    'shadow_<wbr>synthesis'
    """
    return safe(name).replace("_", "_<wbr>")


def percent(share: float | None) -> str:
    """A share as a percentage, in HTML.

    >>> percent(0.0125), percent(1.0), percent(None) == NONE
    ('1.2 %', '100 %', True)
    """
    if share is None:
        return NONE
    text = f"{100 * share:.1f}"
    if text in ("0.0", "100.0") and share not in (0, 1):
        text = f"{100 * share:.2g}" if share < 0.5 else "> 99.9"
    return f"{html.escape(text.removesuffix('.0') if share in (0, 1) else text)} %"


def number(value: float | None) -> str:
    """A figure between 0 and 1 with three digits, never rounded up to a perfect 1."""
    if value is None:
        return NONE
    if value >= 1 or f"{value:.3f}" != "1.000":
        return f"{value:.3f}"
    return f"{value:.4f}" if f"{value:.4f}" != "1.0000" else "&gt; 0.9999"


def figure(svg: str, heading: str, note: str) -> str:
    """A picture with its heading and a sentence on how to read it."""
    # An image cannot reach the page, and its ids cannot clash with those of the next one.
    source = base64.b64encode(svg.encode()).decode()
    caption = f'<p class="small">{note}</p>' if note else ""
    image = f'<img alt="{heading}" src="data:image/svg+xml;base64,{source}">'
    return f"<figure><h3>{heading}</h3>{image}{caption}</figure>"


CSS = """
:root{--ink:#1c2733;--soft:#55616e;--line:#e3e8ed;--attack:#c2410c;--benign:#2f6690;--back:#f6f8fa}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);-webkit-text-size-adjust:100%;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 24px 64px}
header{margin-bottom:28px}
h1{font-size:2rem;line-height:1.2;margin:.1em 0 .4em;overflow-wrap:anywhere}
h2{font-size:1.3rem;line-height:1.3;margin:0 0 .5em}
h3{font-size:.95rem;margin:0 0 .5em;font-weight:600}
p{margin:0 0 1em}
.brand{color:var(--attack);font-weight:600;font-size:.8rem;letter-spacing:.08em;text-transform:uppercase;margin:0}
.lead{font-size:1.1rem;max-width:52em}
.note{background:#fff7e8;border-left:4px solid #d99a2b;padding:10px 14px;border-radius:4px;margin:12px 0}
.aside{color:var(--soft);max-width:60em}
.small{font-size:.82rem;color:var(--soft);font-weight:400;margin:0}
.none{color:#9aa5b1}
section{background:#fff;border:1px solid var(--line);border-radius:10px;padding:24px;margin:20px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(175px,1fr));gap:14px;background:none;border:0;
padding:0}
.card{background:#fff;border:1px solid var(--line);border-radius:10px;padding:16px 18px}
.card h3{color:var(--soft);font-weight:500;margin:0}
.figure{font-size:2rem;font-weight:650;line-height:1.25;margin:0;font-variant-numeric:tabular-nums}
.interval{font-size:.82rem;margin:0 0 .3em}
.scroll{overflow-x:auto}
.scroll table{min-width:760px}
.scroll tbody th{min-width:190px}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:8px 10px;border-bottom:1px solid var(--line);text-align:left;vertical-align:middle}
thead th{font-size:.8rem;font-weight:600;color:var(--soft);vertical-align:bottom}
tbody th{font-weight:500}
tbody tr:last-child>*{border-bottom:0}
.num{text-align:right;white-space:nowrap}
thead .num{white-space:normal}
.best{background:#e4f1e6;font-weight:650;border-radius:3px}
p .best{padding:1px 5px}
.ours th{font-weight:700;color:var(--attack)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:28px 36px;
align-items:start}
.pair>*{min-width:0}
figure{margin:0}
figure img{display:block;width:100%;max-width:560px;height:auto}
.bars th{overflow-wrap:anywhere;width:34%;padding-left:0}
.bars .bar{width:34%;padding:0 4px}
.bars .num{width:5.5em}
.bars .bar div{height:14px;border-radius:3px;min-width:3px;background:var(--benign)}
.bars .bar div.attack{background:var(--attack)}
.bars .bar div.listed{background:#8894a1}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:14px;margin:24px 0 0;
padding:0 10px}
dt{font-size:.8rem;color:var(--soft)}
dd{margin:0;font-size:1.15rem;font-weight:600;font-variant-numeric:tabular-nums}
.guide{color:var(--soft);font-size:.92rem}
.guide p{max-width:68em}
@media (max-width:560px){main{padding:24px 14px 40px}section{padding:16px}}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""
