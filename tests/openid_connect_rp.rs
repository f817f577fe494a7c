//! A relying party that is not ours: the `openidconnect` crate checks everything that it knows to check.
//! OpenID Connect Core §3.1, §12; Discovery §4; RP-Initiated Logout §2; RFC 7009; RFC 7662.

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreErrorResponseType, CoreJwsSigningAlgorithm,
    CoreRevocableToken, CoreTokenResponse, CoreUserInfoClaims,
};
use openidconnect::{
    AccessToken, AccessTokenHash, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IntrospectionUrl,
    IssuerUrl, LogoutRequest, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge,
    PostLogoutRedirectUrl, ProviderMetadataWithLogout, RedirectUrl, RefreshToken,
    RequestTokenError, RevocationUrl, Scope, StandardErrorResponse,
    TokenIntrospectionResponse as _, TokenResponse as _, http,
};
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Op, SECRET};

const SIGNED_OUT: &str = "https://rp.example/signed-out";

/// Its way to us. In life a proxy in front speaks TLS; the crate revokes nothing without.
fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let client = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let (parts, body) = request.into_parts();
    let answer = client
        .request(
            parts.method,
            parts.uri.to_string().replacen("https:", "http:", 1),
        )
        .headers(parts.headers)
        .body(body)
        .send()?;
    let mut response = http::Response::builder().status(answer.status());
    response
        .headers_mut()
        .unwrap()
        .extend(answer.headers().clone());
    Ok(response.body(answer.bytes()?.to_vec()).unwrap())
}

/// The crate's client for one of ours, with every endpoint that discovery names.
type Library = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointSet,
    EndpointSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

fn metadata(op: &Op) -> ProviderMetadataWithLogout {
    let issuer = IssuerUrl::new(op.issuer.clone()).unwrap();
    ProviderMetadataWithLogout::discover(&issuer, &send).unwrap()
}

fn library(op: &Op, client_id: &str) -> Library {
    // The crate has no name for these two in its metadata.
    let document = op.rp().get("/.well-known/openid-configuration");
    CoreClient::from_provider_metadata(
        metadata(op),
        ClientId::new(client_id.to_owned()),
        Some(ClientSecret::new(SECRET.to_owned())),
    )
    .set_redirect_uri(RedirectUrl::new(CALLBACK.to_owned()).unwrap())
    .set_introspection_url(
        IntrospectionUrl::new(document.text("introspection_endpoint").to_owned()).unwrap(),
    )
    .set_revocation_url(
        RevocationUrl::new(
            document
                .text("revocation_endpoint")
                .replacen("http:", "https:", 1),
        )
        .unwrap(),
    )
}

fn tokens_of(
    client: &Library,
    browser: &mut Browser,
    scopes: &[&str],
) -> (CoreTokenResponse, Nonce) {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let (url, state, nonce) = client
        .authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            CsrfToken::new_random,
            Nonce::new_random,
        )
        .add_scopes(scopes.iter().map(|scope| Scope::new((*scope).to_owned())))
        .set_pkce_challenge(challenge)
        .url();
    let callback = browser.complete(url.as_str()).callback();
    assert_eq!(callback["state"], *state.secret());
    let tokens = client
        .exchange_code(AuthorizationCode::new(callback["code"].clone()))
        .unwrap()
        .set_pkce_verifier(verifier)
        .request(&send)
        .unwrap();
    (tokens, nonce)
}

fn signs_in(op: &Op, client_id: &str, algorithm: CoreJwsSigningAlgorithm) {
    let client = library(op, client_id);
    let (tokens, nonce) = tokens_of(&client, &mut op.browser(), &["profile", "email"]);

    let verifier = client
        .id_token_verifier()
        .set_allowed_algs([algorithm.clone()]);
    let id_token = tokens.id_token().unwrap();
    let claims = id_token.claims(&verifier, &nonce).unwrap();
    assert_eq!(*id_token.signing_alg().unwrap(), algorithm);
    let hash = AccessTokenHash::from_token(
        tokens.access_token(),
        id_token.signing_alg().unwrap(),
        id_token.signing_key(&verifier).unwrap(),
    );
    assert_eq!(claims.access_token_hash(), Some(&hash.unwrap()));
    assert!(
        id_token
            .claims(&verifier, &Nonce::new("another".to_owned()))
            .is_err(),
        "it does check"
    );

    let person: CoreUserInfoClaims = client
        .user_info(
            tokens.access_token().clone(),
            Some(claims.subject().clone()),
        )
        .unwrap()
        .request(&send)
        .unwrap();
    assert_eq!(person.email().unwrap().as_str(), "alice@example.test");
    assert_eq!(person.email_verified(), Some(true));
    assert_eq!(
        person.name().unwrap().get(None).unwrap().as_str(),
        "Alice Archer"
    );
}

/// A client that may refresh, and come back after a sign-out.
fn notes(op: &Op) -> Library {
    op.client(json!({
        "client_id": "notes", "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"],
        "post_logout_redirect_uris": [SIGNED_OUT]
    }));
    library(op, "notes")
}

fn refreshed(
    client: &Library,
    token: &RefreshToken,
) -> Result<CoreTokenResponse, StandardErrorResponse<CoreErrorResponseType>> {
    let request = client.exchange_refresh_token(token).unwrap();
    request.request(&send).map_err(|error| match error {
        RequestTokenError::ServerResponse(refusal) => refusal,
        other => panic!("{other}"),
    })
}

fn is_active(client: &Library, token: &AccessToken) -> bool {
    client.introspect(token).request(&send).unwrap().active()
}

on_both_databases! {
    fn a_library_that_is_not_ours_signs_a_person_in_with_rs256(op) {
        signs_in(&op, "rp", CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256);
    }

    fn a_library_that_is_not_ours_signs_a_person_in_with_es256(op) {
        op.client(json!({ "client_id": "es", "client_secret": SECRET, "id_token_signed_response_alg": "ES256" }));
        signs_in(&op, "es", CoreJwsSigningAlgorithm::EcdsaP256Sha256);
    }

    fn a_library_that_is_not_ours_refreshes_and_a_lost_answer_costs_it_nothing(op) {
        let client = notes(&op);
        let (first, _) = tokens_of(&client, &mut op.browser(), &["offline_access"]);
        let first_token = first.refresh_token().unwrap();
        let second = refreshed(&client, first_token).unwrap();
        let again = refreshed(&client, first_token).unwrap();
        assert_eq!(again.refresh_token().unwrap().secret(), second.refresh_token().unwrap().secret());
        let verifier = client.id_token_verifier();
        // An ID token of a refresh has no nonce (Core §12.2).
        let claims = second.id_token().unwrap().claims(&verifier, |_: Option<&Nonce>| Ok(())).unwrap();
        assert!(claims.nonce().is_none() && claims.auth_time().is_some());
        let third = refreshed(&client, second.refresh_token().unwrap()).unwrap();
        for token in [first_token, third.refresh_token().unwrap()] {
            let refusal = refreshed(&client, token).unwrap_err();
            assert_eq!(*refusal.error(), CoreErrorResponseType::InvalidGrant);
        }
    }

    fn a_library_that_is_not_ours_introspects_and_revokes(op) {
        let client = notes(&op);
        let (tokens, _) = tokens_of(&client, &mut op.browser(), &["offline_access"]);
        let told = client.introspect(tokens.access_token()).request(&send).unwrap();
        assert!(told.active());
        assert_eq!(told.client_id().unwrap().as_str(), "notes");
        let revoke = |token: CoreRevocableToken| client.revoke_token(token).unwrap().request(&send).unwrap();
        let other = refreshed(&client, tokens.refresh_token().unwrap()).unwrap();
        revoke(tokens.access_token().clone().into());
        assert!(!is_active(&client, tokens.access_token()) && is_active(&client, other.access_token()));
        revoke(other.refresh_token().unwrap().clone().into());
        assert!(!is_active(&client, other.access_token()));
        assert!(refreshed(&client, other.refresh_token().unwrap()).is_err());
    }

    fn a_library_that_is_not_ours_signs_out_and_its_person_comes_back(op) {
        let client = notes(&op);
        let mut browser = op.browser();
        let (tokens, _) = tokens_of(&client, &mut browser, &["profile"]);
        let metadata = metadata(&op);
        let endpoint = metadata.additional_metadata().end_session_endpoint.clone().unwrap();
        let url = LogoutRequest::from(endpoint)
            .set_id_token_hint(tokens.id_token().unwrap())
            .set_post_logout_redirect_uri(PostLogoutRedirectUrl::new(SIGNED_OUT.to_owned()).unwrap())
            .set_state(CsrfToken::new("a-state".to_owned()))
            .http_get_url();
        let left = browser.get(url.as_str());
        assert_eq!(left.location().unwrap(), format!("{SIGNED_OUT}?state=a-state"));
        assert!(!is_active(&client, tokens.access_token()));
    }

    fn a_library_that_is_not_ours_gets_a_token_for_a_machine(op) {
        op.client(json!({
            "client_id": "machine", "client_secret": SECRET, "redirect_uris": [], "grant_types": ["client_credentials"],
            "scope": "orders.read orders.write", "allowed_resources": ["https://orders.example/"]
        }));
        let client = library(&op, "machine");
        let tokens = client
            .exchange_client_credentials()
            .unwrap()
            .add_scope(Scope::new("orders.read".to_owned()))
            .request(&send)
            .unwrap();
        assert_eq!(tokens.scopes(), Some(&vec![Scope::new("orders.read".to_owned())]));
        assert!(tokens.refresh_token().is_none() && is_active(&client, tokens.access_token()));
    }
}
