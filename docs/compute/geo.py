"""A greeting in the language of the visitor's country, which the gateway knows by its GeoIP database.

curl -H 'X-Forwarded-For: 193.252.1.1' http://127.0.0.1:8080/     # an address in France
"""

from __future__ import annotations

from aiohttp import web

from edge.sdk import edge

HELLO = {"DE": "Guten Tag", "AT": "Grüß Gott", "FR": "Bonjour", "ES": "Hola", "IT": "Buongiorno", "JP": "こんにちは"}


async def greeting(request: web.Request) -> web.Response:
    country = edge().country
    return web.json_response(
        {"hello": HELLO.get(country, "Hello"), "country": country or None},
        headers={"Cache-Control": "private, max-age=60"},  # by place, so not for everybody
    )


app = web.Application()
app.router.add_get("/", greeting)
