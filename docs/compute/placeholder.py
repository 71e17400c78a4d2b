"""Placeholder images: made once for each size and text, then hits.

curl 'http://127.0.0.1:8080/600x400.svg?text=soon'
"""

from __future__ import annotations

from html import escape

from aiohttp import web

LARGEST = 4000
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}">
<rect width="100%" height="100%" fill="#ddd"/>
<text x="50%" y="50%" fill="#555" font-size="{size}" text-anchor="middle" dy=".35em">{text}</text>
</svg>
"""


async def image(request: web.Request) -> web.Response:
    width, height = int(request.match_info["width"]), int(request.match_info["height"])
    if not (0 < width <= LARGEST and 0 < height <= LARGEST):
        raise web.HTTPBadRequest(text=f"sides are 1 to {LARGEST}\n")
    text = escape(request.query.get("text", f"{width} × {height}")[:60])
    return web.Response(
        text=SVG.format(w=width, h=height, size=max(8, min(width, height) // 6), text=text),
        content_type="image/svg+xml",
        headers={
            "Cache-Control": "public, max-age=86400",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        },
    )


app = web.Application()
app.router.add_get(r"/{width:\d{1,4}}x{height:\d{1,4}}.svg", image)
