"""Texts that would act in a page which took them for markup, and then tell it by `__pwned`."""

PWN = "window.__pwned=1"
ELSEWHERE = "http://elsewhere.example"
NAME = f'<img src=x onerror="{PWN}">'
"""Good wherever only a name may stand."""
TEXTS = [
    f"<script>{PWN}</script>",
    f'<img src=x onerror="{PWN}">',
    f'<img src="{ELSEWHERE}/pixel.png">',
    f"![pixel]({ELSEWHERE}/markdown.png)",
    f'![a]({ELSEWHERE}/b.png "onerror={PWN}")',
    f"[click](javascript:{PWN})",
    f"[click](JaVaScRiPt:{PWN})",
    f"[click](java&#115;cript:{PWN})",
    f"[click](data:text/html,<script>{PWN}</script>)",
    f"[click](vbscript:{PWN})",
    f"<javascript:{PWN}>",
    f"[ref]: javascript:{PWN}\n\n[ref]",
    f'<a href="javascript:{PWN}">click</a>',
    f'<svg onload="{PWN}"><animate onbegin="{PWN}" attributeName=x></svg>',
    f"<svg><script>{PWN}</script></svg>",
    f'<iframe srcdoc="<script>parent.{PWN}</script>"></iframe>',
    f'<iframe src="{ELSEWHERE}/frame"></iframe>',
    f'<details open ontoggle="{PWN}">x</details>',
    f'<style>@import url("{ELSEWHERE}/style.css"); body {{ display: none }}</style>',
    f'<link rel="stylesheet" href="{ELSEWHERE}/link.css">',
    f'<meta http-equiv="refresh" content="0; url={ELSEWHERE}/refresh">',
    f'<base href="{ELSEWHERE}/">',
    f'<form action="{ELSEWHERE}/form"><button autofocus onfocus="{PWN}">x</button></form>',
    f'<input autofocus onfocus="{PWN}">',
    f'<math><mtext><table><mglyph><style><img src=x onerror="{PWN}">',
    f'<noscript><p title="</noscript><img src=x onerror={PWN}>">',
    f'<div style="background: url({ELSEWHERE}/div.png)">x</div>',
    f"```html\n</code></pre><img src=x onerror={PWN}>\n```",
    f'```"><img src=x onerror={PWN}>\ncode\n```',
    f"`</code><img src=x onerror={PWN}>`",
    f"| a |\n|---|\n| <img src=x onerror={PWN}> |",
    '<p id="settings">x</p><form id="views"><input name="attributes"></form>',
    f"[x](https://a.example/'onmouseover='{PWN}')",
    f'<https://a.example/"onmouseover="{PWN}>',
]
ALL = "\n\n".join(TEXTS)
