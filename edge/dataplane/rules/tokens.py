"""`auth.jwt`: a signed token says who asks. Keys come from a JSON Web Key Set, a file or a URL.

One rule: the key decides the algorithm, never the token: a key of one kind takes the algorithms of its kind alone,
`none` is none, and a secret that is shared (`oct`) counts only from a file. Without keys there is no verdict: 503,
never open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal

import orjson

from edge.cache.key import cookies
from edge.config.auth import Jwt
from edge.dataplane.rules.authentication import Identity, Unauthorized, Verdicts, admit, identity
from edge.dataplane.rules.service import Reply, Service
from edge.dataplane.rules.steps import Waiting
from edge.dataplane.rules.template import CONTROLS
from edge.errors import EdgeError, NoBackend

try:
    import jwt
except ImportError:  # the extra `auth`; a configuration that needs it is refused
    jwt = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.steps import StepExchange

FRESH_S = 600.0  # how long a fetched key set is used before it is fetched again
UNKNOWN_S = 10.0  # a key that it has not is not looked for more often
KNOWN_S = 300.0  # how long a token that was right stays known, or until it expires
WRONG_S = 10.0
LONGEST = 8192
ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
    "oct": ("HS256", "HS384", "HS512"),
}


class Keys:
    """A JSON Web Key Set, by key id."""

    def __init__(self, service: Service | None, content: bytes | None) -> None:
        """From a service, or a file's content. Raises ValueError for a file that is none."""
        self.service = service
        self._keys: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._waiting: list[Callable[[], None]] | None = None  # who hears of the fetch that is under way
        if content is not None:
            self._keys = parsed(content, shared=True)
            if not self._keys:
                raise ValueError("the key set has no key that can be used")

    @property
    def is_empty(self) -> bool:
        """Whether there is no usable key."""
        return not self._keys

    def find(self, kid: str | None) -> tuple[Any, tuple[str, ...]] | None:
        """The key for a token, with the algorithms that it may be used for; None if there is none."""
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def refresh(self, missing: bool, then: Callable[[], None]) -> bool:
        """Fetch where it is time to; true when `then` is called later, for the keys are needed now."""
        now = monotonic()
        if self.service is None:
            return False
        if self._waiting is not None:
            if missing:
                self._waiting.append(then)
            return missing
        due = now - self._fetched_at > FRESH_S or missing
        if not due or now - self._asked_at < (UNKNOWN_S if self._keys else 1.0):
            return False
        self._asked_at = now
        self._waiting = [then] if missing else []
        service = self.service
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: application/json\r\n\r\n" % (service.target, service.host)
        service.ask(head, self._came)
        return missing

    def _came(self, reply: Reply | None) -> None:
        waiting, self._waiting = self._waiting or [], None
        if reply is not None and reply.status == 200:
            try:
                found = parsed(reply.body, shared=False)
            except ValueError:
                found = {}
            if found:  # a set that turned empty or broken is taken for a mistake: the keys before it hold
                self._keys, self._fetched_at = found, monotonic()
        for each in waiting:
            each()


def parsed(content: bytes, shared: bool) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """The usable keys of a set. Raises ValueError for what is not a key set."""
    try:
        entries = orjson.loads(content)["keys"]
        found = [entry for entry in entries if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("is no JSON Web Key Set") from error
    keys: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for number, entry in enumerate(found):
        usable = ALGORITHMS.get(str(entry.get("kty")), ())
        if entry.get("use", "sig") != "sig" or (entry.get("kty") == "oct" and not shared):
            continue
        alg = entry.get("alg")
        algorithms = usable if alg is None else tuple(each for each in usable if each == alg)
        try:
            key = jwt.PyJWK(entry, algorithm=algorithms[0] if algorithms and alg is None else None)
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, IndexError):
            continue  # of a kind that this gateway does not know
        if algorithms:
            keys[str(entry.get("kid", number))] = (key.key, algorithms)
    return keys


class JwtAuth:
    """`auth.jwt` of a route."""

    name = "auth"

    def __init__(self, keys: Keys, values: Jwt) -> None:
        self._keys = keys
        self.service = keys.service
        self._issuer, self._audience, self._leeway = values.issuer, values.audience, values.leeway
        self._cookie = None if values.cookie is None else values.cookie.encode()
        self._headers = tuple(values.headers.items())
        self._verdicts: Verdicts[Identity | bool] = Verdicts()

    def take_over(self, lived: JwtAuth) -> None:
        """Keep fetched keys after a reload."""
        if self.service is not None and lived.service is not None and self.service.is_like(lived.service):
            self._keys, self.service = lived._keys, lived.service

    def apply(self, exchange: StepExchange) -> Waiting | None:
        """Raises Unauthorized; NoBackend (503) when keys cannot be had."""
        known = self._verdicts.noted(exchange)
        if isinstance(known, Identity):
            admit(exchange, known)
            return None
        token = self._token(exchange)
        if token is None:
            raise self._refused(exchange, "a token is missing", b"Bearer")
        mark = self._verdicts.mark(token)
        verdict = self._verdicts.get(mark)
        if isinstance(verdict, Identity):
            self._verdicts.note(exchange, mark)
            admit(exchange, verdict)
            return None
        if verdict is False:
            raise self._refused(exchange, "the token is not accepted", b'Bearer error="invalid_token"')
        kid = key_id(token)
        missing = kid is not False and self._keys.find(kid) is None
        waiting = Waiting(exchange) if missing else None
        if self._keys.refresh(missing, partial(self._again, waiting, token, mark)):
            return waiting
        if waiting is not None:
            exchange.follower = None
        self._judge(exchange, token, mark)
        return None

    def _again(self, waiting: Waiting | None, token: bytes, mark: bytes) -> None:
        """Continue when the keys were fetched, or fail."""
        if waiting is None:
            return
        try:
            self._judge(waiting.exchange, token, mark)
        except EdgeError as error:
            waiting.resume(error)
        else:
            waiting.resume()

    def _token(self, exchange: StepExchange) -> bytes | None:
        fields = exchange.block.fields
        kind, _, token = (fields.joined(b"authorization") or b"").partition(b" ")
        if kind.lower() == b"bearer":
            return token.strip(b" ")
        return None if self._cookie is None else cookies(fields).get(self._cookie)

    def _refused(self, exchange: StepExchange, why: str, challenge: bytes) -> Unauthorized:
        exchange.reason = "unauthorized"
        return Unauthorized(why, challenge)

    def _judge(self, exchange: StepExchange, token: bytes, mark: bytes) -> None:
        if self._keys.is_empty:
            exchange.reason = "auth-unavailable"
            raise NoBackend("no keys to verify tokens with")
        claims = self.claims(token)
        if claims is None:
            self._verdicts.put(mark, False, WRONG_S)
            raise self._refused(exchange, "the token is not accepted", b'Bearer error="invalid_token"')
        who = identity(text_of(claims.get("sub")), self._lines(claims))
        self._verdicts.put(mark, who, min(KNOWN_S, float(claims["exp"]) - time()))
        admit(exchange, who)

    def claims(self, token: bytes) -> dict[str, Any] | None:
        """What a token says, when its signature, times, issuer and audience hold."""
        kid = key_id(token)
        found = None if kid is False else self._keys.find(kid)
        if found is None:
            return None
        key, algorithms = found
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(algorithms),
                options={"require": ["exp"], "verify_aud": self._audience is not None},
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        return claims

    def _lines(self, claims: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
        lines = ((name.encode(), text_of(claims.get(claim))) for name, claim in self._headers)
        return tuple(line for line in lines if line[1])

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`; keys are not fetched."""
        fields = asked.block.fields
        token = (fields.joined(b"authorization") or b"").partition(b" ")[2].strip()
        if not token:
            return "401: no token"
        claims = self.claims(token)
        return (
            "401: the token is not accepted" if claims is None else f"lets {text_of(claims.get('sub')).decode()} pass"
        )


def key_id(token: bytes) -> str | Literal[False] | None:
    """The token's `kid`; None: it has none; False: it is not a token."""
    if len(token) > LONGEST:
        return False
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return kid if kid is None or isinstance(kid, str) else False


def text_of(claim: Any) -> bytes:
    """A claim as a field value, on one line."""
    if isinstance(claim, list):
        return b",".join(text_of(each) for each in claim)
    if isinstance(claim, bool):
        return b"true" if claim else b"false"
    if not isinstance(claim, str | int | float):
        return b""
    return str(claim).encode().translate(None, CONTROLS)
