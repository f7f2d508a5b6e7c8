"""Tokens of an OAuth issuer: the server as the resource that RFC 9728 describes.

The SDK publishes the metadata by which clients find the issuer and answers 401 and 403; here is what a token must be:
a JWT that the issuer signed (its keys are fetched as its own metadata says), meant for this server, and not expired.
"""

import json
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from store.errors import UsageError

Endpoint = Callable[[Request], Awaitable[Response]]

FETCH_TIME_LIMIT_S = 10.0
# Signatures that need the issuer's private key: with HS256 the public key would be the secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
METADATA_PATHS = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """Whose tokens are taken, and for what.

    Args:
        issuer: The authorization server, as its tokens call it in `iss`.
        audience: This server, as tokens call it in `aud`: its public URL, with /mcp.
        scopes: That a token must have, all of them.
    """

    issuer: str
    audience: str
    scopes: tuple[str, ...] = ()

    def resource_server(self) -> AuthSettings:
        """The same for the SDK.

        Raises:
            UsageError: One of them is no address.
        """
        try:
            # As text: a URL made beforehand would get a slash at its end, and not be the issuer of the tokens.
            return AuthSettings.model_validate(
                {
                    "issuer_url": self.issuer,
                    "resource_server_url": self.audience,
                    "required_scopes": list(self.scopes) or None,
                    "validate_token_resource": True,
                }
            )
        except ValueError as error:
            raise UsageError(
                f"mcp.oauth_issuer {self.issuer!r} or mcp.oauth_audience {self.audience!r} is no address",
                "write both as https://…",
            ) from error


class IssuerTokens(TokenVerifier):
    """Takes the issuer's tokens for this server. Its keys are asked for at the first token, and kept for a while."""

    def __init__(self, settings: OAuthSettings) -> None:
        self._settings = settings
        self._keys: jwt.PyJWKClient | None = None

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            claims = await anyio.to_thread.run_sync(self._claims, token)
        except (jwt.PyJWTError, OSError, ValueError):
            return None
        scopes = claims.get("scope", "")
        return AccessToken(
            token=token,
            client_id=str(claims.get("client_id") or claims.get("azp") or claims["sub"]),
            scopes=scopes.split() if isinstance(scopes, str) else [str(scope) for scope in scopes],
            expires_at=int(claims["exp"]),
            resource=self._settings.audience,  # `aud` was compared with it
            subject=str(claims["sub"]),
            claims=claims,
        )

    def asked_for(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint for those who show such a token, with every scope that is required."""

        async def answer(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            shown = await self.verify_token(token) if scheme.lower() == "bearer" else None
            if shown is None:
                sentence = f"a token of {self._settings.issuer} for {self._settings.audience} is required"
                return JSONResponse({"error": sentence}, 401, {"WWW-Authenticate": "Bearer"})
            if missing := set(self._settings.scopes) - set(shown.scopes):
                return JSONResponse({"error": f"the token lacks the scope {min(missing)}"}, 403)
            return await endpoint(request)

        return answer

    def _claims(self, token: str) -> dict[str, Any]:
        if self._keys is None:
            self._keys = jwt.PyJWKClient(_keys_address(self._settings.issuer), timeout=FETCH_TIME_LIMIT_S)
        claims: dict[str, Any] = jwt.decode(
            token,
            self._keys.get_signing_key_from_jwt(token).key,
            algorithms=list(ALGORITHMS),
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return claims


def _keys_address(issuer: str) -> str:
    """Where the issuer says that its keys are."""
    for path in METADATA_PATHS:
        try:
            with urllib.request.urlopen(issuer.rstrip("/") + path, timeout=FETCH_TIME_LIMIT_S) as answer:  # noqa: S310 - an address of the settings
                return str(json.load(answer)["jwks_uri"])
        except (OSError, KeyError):
            continue
    raise OSError(f"{issuer} says nowhere where its keys are")
