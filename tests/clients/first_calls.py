"""README's first calls, made with the client that is generated from the OpenAPI document.

As a program of its own, so that a type checker reads it as it would its users' code:
`python first_calls.py URL PASSWORD`.
"""

import sys
from typing import TypeVar

from backend_client import AuthenticatedClient, Client
from backend_client.api.api_keys import (
    api_keys_create_key,
    api_keys_list_keys,
    api_keys_revoke_held_key,
)
from backend_client.api.auth import auth_introspect_token, auth_login, auth_me, auth_revoke_token
from backend_client.models import (
    ApiKeyPage,
    AuthMethod,
    CreateKey,
    Introspection,
    KeyStatus,
    Login,
    Me,
    NewApiKey,
    PresentedToken,
    Problem,
    ProblemCode,
    RevokeKey,
    Role,
    Tokens,
    TokenType,
)

Kind = TypeVar("Kind")


def the(kind: type[Kind], answer: object) -> Kind:
    """The answer, which is of this kind and no problem."""
    assert isinstance(answer, kind), answer
    return answer


def main(url: str, password: str) -> None:
    """Sign in, make a key, call with it, and end both."""
    anyone = Client(base_url=url)
    login = Login(username="admin", password=password)
    tokens = the(Tokens, auth_login.sync(client=anyone, body=login))
    session = AuthenticatedClient(base_url=url, token=tokens.access_token)
    me = the(Me, auth_me.sync(client=session))
    assert (me.id, me.role, me.auth.method) == (tokens.user.id, Role.ADMIN, AuthMethod.SESSION)
    assert me.auth.scopes is None

    wanted = CreateKey(name="deploys", scopes=["keys:read"], expires_in_days=90)
    key = the(NewApiKey, api_keys_create_key.sync(client=session, body=wanted))
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).days in {89, 90}
    holder = AuthenticatedClient(
        base_url=url, token=key.key, prefix="", auth_header_name="X-API-Key"
    )
    by_key = the(Me, auth_me.sync(client=holder)).auth
    assert (by_key.method, by_key.key_id) == (AuthMethod.API_KEY, key.id)
    [listed] = the(ApiKeyPage, api_keys_list_keys.sync(client=holder, limit=5)).items
    assert (listed.id, listed.status, listed.quota) == (key.id, KeyStatus.ACTIVE, None)

    shown = PresentedToken(token=key.key)
    told = the(Introspection, auth_introspect_token.sync(client=session, body=shown))
    assert (told.active, told.token_type, told.client_id) == (True, TokenType.API_KEY, key.id)
    ended = api_keys_revoke_held_key.sync_detailed(client=anyone, body=RevokeKey(key=key.key))
    assert ended.status_code == 204
    refused = the(Problem, auth_me.sync(client=holder))
    assert (refused.status, refused.code) == (401, ProblemCode.INVALID_CREDENTIALS)

    held = PresentedToken(token=tokens.refresh_token)
    assert auth_revoke_token.sync_detailed(client=anyone, body=held).status_code == 200
    the(Problem, auth_me.sync(client=session))


if __name__ == "__main__":
    main(*sys.argv[1:])
