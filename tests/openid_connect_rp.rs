//! A relying party that is not ours: the `openidconnect` crate checks everything that it knows to check.
//! OpenID Connect Core §3.1; Discovery §4.

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreJwsSigningAlgorithm, CoreProviderMetadata,
    CoreUserInfoClaims,
};
use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest,
    HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, RedirectUrl,
    Scope, TokenResponse as _, http,
};
use serde_json::json;

use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Op, SECRET};

/// Its way to us.
fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let client = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let (parts, body) = request.into_parts();
    let answer = client
        .request(parts.method, parts.uri.to_string())
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

fn signs_in(op: &Op, client_id: &str, algorithm: CoreJwsSigningAlgorithm) {
    let issuer = IssuerUrl::new(op.issuer.clone()).unwrap();
    let metadata = CoreProviderMetadata::discover(&issuer, &send).unwrap();
    let client = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(client_id.to_owned()),
        Some(ClientSecret::new(SECRET.to_owned())),
    )
    .set_redirect_uri(RedirectUrl::new(CALLBACK.to_owned()).unwrap());
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let (url, state, nonce) = client
        .authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            CsrfToken::new_random,
            Nonce::new_random,
        )
        .add_scope(Scope::new("profile".to_owned()))
        .add_scope(Scope::new("email".to_owned()))
        .set_pkce_challenge(challenge)
        .url();

    let callback = op.browser().complete(url.as_str()).callback();
    assert_eq!(callback["state"], *state.secret());
    let tokens = client
        .exchange_code(AuthorizationCode::new(callback["code"].clone()))
        .unwrap()
        .set_pkce_verifier(verifier)
        .request(&send)
        .unwrap();

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

on_both_databases! {
    fn a_library_that_is_not_ours_signs_a_person_in_with_rs256(op) {
        signs_in(&op, "rp", CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256);
    }

    fn a_library_that_is_not_ours_signs_a_person_in_with_es256(op) {
        op.client(json!({ "client_id": "es", "client_secret": SECRET, "id_token_signed_response_alg": "ES256" }));
        signs_in(&op, "es", CoreJwsSigningAlgorithm::EcdsaP256Sha256);
    }
}
