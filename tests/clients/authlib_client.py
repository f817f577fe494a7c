"""PyPI's Authlib: a code with PKCE, an ID token checked against the published keys, UserInfo; refresh, introspection,
revocation, sign-out, and a machine's own token."""

import html
import os
import re
import sys
from urllib.parse import parse_qs, urljoin, urlsplit

import requests
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.jwk import KeySet

# Authlib refuses plain http otherwise; this server listens on the loopback interface only.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

ISSUER, LOGIN, PASSWORD, SECRET = (
    os.environ[name] for name in ("ISSUER", "LOGIN", "PASSWORD", "SECRET")
)
CALLBACK = "http://localhost:9/callback"
SIGNED_OUT = "http://localhost:9/signed-out"
OFFLINE = "openid profile email offline_access"
API = "https://orders.example/"
SERVER = requests.get(f"{ISSUER}/.well-known/openid-configuration", timeout=20).json()


def main():
    for method, client_id in (("client_secret_basic", "basic"), ("client_secret_post", "post")):
        check(
            f"a code with PKCE for a client that uses {method}",
            lambda: sign_in(client_id, method, SECRET),
        )
    check("a public client with PKCE", lambda: sign_in("public", "none", None))
    check("a code works once", code_works_once)
    check("refresh, also when the answer was lost, and a replay ends the family", refreshes)
    check("introspection and revocation", introspects_and_revokes)
    check("sign-out at the issuer, and back", signs_out)
    check("a machine's own token for an API", gets_a_token_of_its_own)


def check(title, body):
    """One line a check, which the runner counts."""
    try:
        body()
        print(f"ok Authlib: {title}")
    except Exception as error:  # A failed check must not keep the others from running.
        print(f"FAILED Authlib: {title}: {type(error).__name__} {' '.join(str(error).split())}")
        check.failed = True


def sign_in(client_id, method, secret):
    session, token, nonce, _response, _verifier = redeem(client_id, method, secret)
    keys = KeySet.import_key_set(requests.get(SERVER["jwks_uri"], timeout=20).json())
    signed = jwt.decode(token["id_token"], keys, algorithms=["RS256", "ES256", "EdDSA"])
    claims = CodeIDToken(
        signed.claims,
        signed.header,
        {"iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": client_id}},
        {"nonce": nonce, "client_id": client_id, "access_token": token["access_token"]},
    )
    claims.validate()
    person = session.get(SERVER["userinfo_endpoint"], timeout=20).json()
    assert person["sub"] == claims["sub"], "UserInfo is about somebody else"
    assert person["email"] == LOGIN and person["email_verified"] is True, person
    assert person["name"] == "Alice Example", person


def code_works_once():
    session, _token, _nonce, response, verifier = redeem("basic", "client_secret_basic", SECRET)
    assert_refused(
        lambda: session.fetch_token(
            SERVER["token_endpoint"], authorization_response=response, code_verifier=verifier
        ),
        "invalid_grant",
    )


def refreshes():
    session, first, *_ = redeem("basic", "client_secret_basic", SECRET, OFFLINE)

    def refresh(token):
        return session.refresh_token(SERVER["token_endpoint"], refresh_token=token["refresh_token"])

    second = refresh(first)
    assert second["refresh_token"] != first["refresh_token"], "it was not rotated"
    lost = refresh(first)
    assert lost["refresh_token"] == second["refresh_token"], "a second branch"
    third = refresh(second)
    assert_refused(lambda: refresh(first), "invalid_grant")
    assert_refused(lambda: refresh(third), "invalid_grant")


def introspects_and_revokes():
    session, token, *_ = redeem("post", "client_secret_post", SECRET, OFFLINE)

    def is_active(kind):
        answer = session.introspect_token(
            SERVER["introspection_endpoint"], token=token[kind], token_type_hint=kind
        )
        answer.raise_for_status()
        return answer.json()["active"]

    assert is_active("access_token") and is_active("refresh_token")
    session.revoke_token(
        SERVER["revocation_endpoint"],
        token=token["refresh_token"],
        token_type_hint="refresh_token",
    ).raise_for_status()
    assert not is_active("access_token") and not is_active("refresh_token")


def signs_out():
    browser = requests.Session()
    session, token, *_ = redeem("basic", "client_secret_basic", SECRET, browser=browser)
    url = requests.Request(
        "GET",
        SERVER["end_session_endpoint"],
        params={
            "id_token_hint": token["id_token"],
            "post_logout_redirect_uri": SIGNED_OUT,
            "state": "a state",
        },
    ).prepare().url
    assert as_person(url, browser) == f"{SIGNED_OUT}?state=a+state"
    answer = session.get(SERVER["userinfo_endpoint"], timeout=20)
    assert answer.status_code == 401, answer.status_code


def gets_a_token_of_its_own():
    session = OAuth2Session("machine", SECRET, token_endpoint_auth_method="client_secret_basic")
    token = session.fetch_token(
        SERVER["token_endpoint"], grant_type="client_credentials", scope="orders.read", resource=API
    )
    assert token["scope"] == "orders.read" and "refresh_token" not in token, token
    keys = KeySet.import_key_set(requests.get(SERVER["jwks_uri"], timeout=20).json())
    signed = jwt.decode(token["access_token"], keys, algorithms=["RS256", "ES256", "EdDSA"])
    assert signed.header["typ"] == "at+jwt", signed.header
    assert (signed.claims["aud"], signed.claims["sub"]) == (API, "machine"), signed.claims


def assert_refused(request, error):
    try:
        request()
    except OAuthError as refused:
        assert refused.error == error, refused
    else:
        raise AssertionError(f"no {error}")


def redeem(client_id, method, secret, scope="openid profile email", browser=None):
    session = OAuth2Session(
        client_id,
        secret,
        token_endpoint_auth_method=method,
        scope=scope,
        redirect_uri=CALLBACK,
        code_challenge_method="S256",
    )
    verifier, nonce = generate_token(48), generate_token(20)
    url, state = session.create_authorization_url(
        SERVER["authorization_endpoint"], code_verifier=verifier, nonce=nonce
    )
    response = as_person(url, browser or requests.Session())
    answered = parse_qs(urlsplit(response).query)
    assert answered.get("iss") == [ISSUER], f"RFC 9207: {response}"
    token = session.fetch_token(
        SERVER["token_endpoint"],
        authorization_response=response,
        state=state,
        code_verifier=verifier,
    )
    return session, token, nonce, response, verifier


def as_person(url, browser):
    """Signs in and allows whatever is asked; answers where the browser left the issuer."""
    fields = None
    for _step in range(15):
        if fields is None:
            answer = browser.get(url, allow_redirects=False, timeout=20)
        else:
            answer = browser.post(
                url, fields, headers={"Origin": ISSUER}, allow_redirects=False, timeout=20
            )
        fields = None
        if "location" in answer.headers:
            url = urljoin(url, answer.headers["location"])
            if not url.startswith(f"{ISSUER}/"):
                return url
            continue
        answer.raise_for_status()
        url, fields = fill_in(url, answer.text)
    raise AssertionError(f"no end to the pages, the last was {url}")


def fill_in(url, page):
    # The last form: the consent page has one to switch accounts before it.
    forms = [form for form in re.findall(r"<form\b.*?</form>", page, re.S) if 'type="hidden"' in form]
    form = forms[-1]
    fields = {
        html.unescape(name): html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form)
    }
    if 'id="login-submit"' in page:
        fields |= {"login": LOGIN, "password": PASSWORD, "action": "sign-in"}
    else:
        assert 'id="consent-allow"' in page, f"neither sign-in nor consent: {page[:300]}"
        fields["action"] = "allow"
    return urljoin(url, html.unescape(re.search(r'\baction="([^"]*)"', form)[1])), fields


check.failed = False
main()
sys.exit(1 if check.failed else 0)
