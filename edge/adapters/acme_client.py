"""A server of certificates (RFC 8555), by the libraries acme and josepy: an account, and one certificate at a time.

    directory ─► account ─► order ─► HTTP-01 tokens shown ─► proved ─► finalised ─► chain

One rule: whatever the server does, the answer is a certificate that fits what was asked for, or `AcmeFailed` with one
clear line. It blocks: only the issuer's process calls it, in a thread, and ends with a thread that hangs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import BytesIO
from time import time
from typing import Any

import requests
from acme import challenges, errors, messages
from acme.client import ClientNetwork, ClientV2
from acme.crypto_util import make_csr
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC
from josepy.util import ComparableECKey
from requests.adapters import HTTPAdapter

from edge import __version__
from edge.adapters.acme_files import Account
from edge.adapters.certificate_pem import NotUsable, joined, new_key
from edge.config.acme import Acme
from edge.errors import EdgeError

MAX_BYTES = 1024 * 1024  # of one answer
TIMEOUT_S = 30  # between two pieces of one
ORDER_S = 180.0  # until proved and finalised
LONGEST = 300  # of a server's words in ours

Show = Callable[[Mapping[str, str]], None]  # key authorizations by token; returns when every worker has them


class AcmeFailed(EdgeError):
    """No certificate. `refused`: the server said no; to ask again soon makes it worse. `wait_s`: it said when."""

    def __init__(self, detail: str, refused: bool = False, wait_s: float | None = None) -> None:
        super().__init__(" ".join(detail.split())[:LONGEST])
        self.refused, self.wait_s = refused, wait_s


class AcmeServer:
    """One directory for one job. `keep` makes the account durable, before it is used."""

    def __init__(self, values: Acme, account: Account | None, keep: Callable[[Account], None]) -> None:
        self._values, self._keep = values, keep
        key = None if account is None else _key_of(account)
        if account is None or key is None:
            key = JWKEC(key=ComparableECKey(ec.generate_private_key(ec.SECP256R1())))
            account = Account(json.dumps(key.to_json()))
            keep(account)
        self._account = account
        self._transport = _Transport()
        self._net = ClientNetwork(key, alg=ES256, user_agent=f"streamgate-edge/{__version__}", timeout=TIMEOUT_S)
        self._net.session.mount("https://", self._transport)
        if values.ca is not None:
            self._net.verify_ssl = values.ca  # type: ignore[assignment]  # requests takes a file as well
        if self._account.uri:
            self._net.account = _registered(self._account.uri)

    def issue(self, name: str, show: Show) -> bytes:
        """A new key and its chain, PEM. Raises AcmeFailed."""
        with self._explained():
            client = self._client()
            key = new_key()
            order = self._order(client, make_csr(key, [name]))
            try:
                self._prove(client, order, show)
                done = client.poll_and_finalize(order, datetime.now() + timedelta(seconds=ORDER_S))
            finally:
                show({})
            return joined(key, (done.fullchain_pem or "").encode(), name, time())

    def suggestion(self, pem: bytes) -> tuple[float | None, float]:
        """When the server would have a certificate renewed (ARI, RFC 9773), None where it does not say; and when to ask
        again. Epoch seconds. Raises AcmeFailed."""
        with self._explained():
            at, again = self._client().renewal_time(pem)
            return None if at is None else at.timestamp(), again.timestamp()

    # -- steps -----------------------------------------------------------------------------------------------------

    def _client(self) -> ClientV2:
        return ClientV2(ClientV2.get_directory(self._values.url, self._net), self._net)

    def _register(self, client: ClientV2) -> None:
        """The server knows the account, with the address that the configuration has."""
        values, account = self._values, self._account
        if account.uri and account.email == values.email:
            return
        said = messages.NewRegistration.from_data(email=values.email, terms_of_service_agreed=True)
        if account.uri:
            body = messages.UpdateRegistration(contact=said.contact)
            client.update_registration(_registered(account.uri), body)
            self._took(account.uri)
            return
        if client.external_account_required():
            raise AcmeFailed("the server wants accounts that were made elsewhere, which is not possible here", True)
        try:
            found = client.new_account(said)
            uri = str(found.uri)
        except errors.ConflictError as error:  # the key was registered, and the kill came before that was written
            uri = str(error.location)
            self._net.account = _registered(uri)
        self._took(uri)

    def _took(self, uri: str) -> None:
        self._account = Account(self._account.key, uri, self._values.email)
        self._keep(self._account)

    def _order(self, client: ClientV2, csr: bytes) -> messages.OrderResource:
        try:
            self._register(client)
            return client.new_order(csr)
        except messages.Error as error:
            if error.code != "accountDoesNotExist":  # the server lost it, or was replaced
                raise
        self._net.account = None
        self._account = Account(self._account.key)
        self._register(client)
        return client.new_order(csr)

    def _prove(self, client: ClientV2, order: messages.OrderResource, show: Show) -> None:
        assert self._net.key is not None
        open_ = []
        for each in order.authorizations:
            if each.body.status != messages.STATUS_VALID:
                found = [one for one in each.body.challenges if isinstance(one.chall, challenges.HTTP01)]
                if not found:
                    raise AcmeFailed(f"the server offers no HTTP-01 for {each.body.identifier.value}", refused=True)
                open_.append(found[0])
        tokens = {each.chall.encode("token"): each.chall.validation(self._net.key) for each in open_}
        if tokens:
            show(tokens)
        for each in open_:
            client.answer_challenge(each, each.chall.response(self._net.key))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Everything that the server and the libraries can do becomes one kind of error."""
        try:
            yield
        except AcmeFailed:
            raise
        except (EdgeError, TimeoutError) as error:
            raise AcmeFailed(f"not every worker has the tokens: {error}") from None
        except NotUsable as error:
            raise AcmeFailed(f"what came is not usable: {error}", refused=True) from None
        except errors.ValidationError as error:
            raise AcmeFailed(_unproved(error), True, self._transport.wait_s) from None
        except errors.IssuanceError as error:
            raise AcmeFailed(f"the server said {_problem(error.error)}", True, self._transport.wait_s) from None
        except messages.Error as error:
            raise AcmeFailed(
                f"the server said {_problem(error)}", self._transport.refused, self._transport.wait_s
            ) from None
        except errors.ARIError as error:
            cause = error.__cause__
            said = _problem(cause) if isinstance(cause, messages.Error) else type(cause or error).__name__
            raise AcmeFailed(f"no renewal information: {said}") from None
        except errors.TimeoutError:
            raise AcmeFailed(f"the order was not done within {ORDER_S:g} s") from None
        except requests.RequestException as error:
            raise AcmeFailed(_unreached(error), wait_s=self._transport.wait_s) from None
        except OSError as error:  # the CA's file, the account's
            raise AcmeFailed(str(error)) from None
        except Exception as error:  # garbage: each library raises what it likes
            text = f"the server's answer is not ACME: {type(error).__name__}: {error}"
            raise AcmeFailed(text, wait_s=self._transport.wait_s) from None


class _Transport(HTTPAdapter):
    """Answers of bounded size; and what the last one said of asking again."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = False
        self.wait_s: float | None = None

    def send(self, request: Any, stream: bool = False, *args: Any, **more: Any) -> requests.Response:
        """See the base class."""
        self.refused, self.wait_s = False, None
        response = super().send(request, True, *args, **more)
        data = response.raw.read(MAX_BYTES + 1, decode_content=True)
        response.raw.close()
        if len(data) > MAX_BYTES:
            raise requests.exceptions.ContentDecodingError(f"an answer of more than {MAX_BYTES} bytes")
        response.raw = BytesIO(data)
        self.refused = 400 <= response.status_code < 500
        asked = response.headers.get("Retry-After", "")
        if response.status_code in (429, 503) and asked.isascii() and asked.isdigit():
            self.wait_s = float(asked[:9])
        return response


def _key_of(account: Account) -> JWKEC | None:
    """None where the file was damaged: another account does as well."""
    try:
        found = JWKEC.from_json(json.loads(account.key))
        return found if isinstance(found, JWKEC) else None
    except (ValueError, TypeError, KeyError, JoseError):
        return None


def _registered(uri: str) -> messages.RegistrationResource:
    return messages.RegistrationResource(uri=uri, body=messages.Registration())


def _problem(error: messages.Error) -> str:
    return f"{error.code or error.typ}: {error.detail}"


def _unproved(error: errors.ValidationError) -> str:
    said = [
        f"{each.body.identifier.value}: {_problem(one.error)}"
        for each in error.failed_authzrs
        for one in each.body.challenges
        if one.error is not None
    ]
    return "the server could not verify " + "; ".join(said)


def _unreached(error: requests.RequestException) -> str:
    cause = error.args[0] if error.args else error
    why = getattr(cause, "reason", None) or cause
    return f"the server cannot be reached: {why}"
