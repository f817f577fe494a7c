//! The discovery document. OpenID Connect Discovery §3; RP-Initiated Logout §2.1; RFC 8414 §2; RFC 9207 §3.
//!
//! Every list is the one that the parsers themselves accept, so nothing is advertised that a request can't use.

use serde_json::{Map, Value, json};

use super::client::AuthMethod;
use super::grants::GrantType;
use super::jose::SigningAlgorithm;
use super::known_scopes::KnownScopes;
use super::{acr, authorization_request, claims, pkce, prompt, response_mode};

/// The addresses that the router really serves, as absolute URLs under their registered names.
#[derive(Debug)]
pub struct Endpoints {
    pub authorization: String,
    pub token: String,
    pub userinfo: String,
    pub introspection: String,
    pub revocation: String,
    pub jwks: String,
    pub end_session: String,
}

/// The document, the same for both specifications.
pub fn document(
    issuer: &str,
    endpoints: &Endpoints,
    algorithms: &[SigningAlgorithm],
    scopes: &KnownScopes,
    ui_locales: &[&str],
) -> Value {
    let mut document = Map::new();
    let mut add = |name: &str, value: Value| document.insert(name.to_owned(), value);
    add("issuer", json!(issuer));
    add("authorization_endpoint", json!(endpoints.authorization));
    add("token_endpoint", json!(endpoints.token));
    add("userinfo_endpoint", json!(endpoints.userinfo));
    add("jwks_uri", json!(endpoints.jwks));
    add("end_session_endpoint", json!(endpoints.end_session));
    let scopes: Vec<_> = scopes.names().collect();
    add("scopes_supported", json!(scopes));
    add(
        "response_types_supported",
        json!(authorization_request::RESPONSE_TYPES),
    );
    add("response_modes_supported", json!(response_mode::SUPPORTED));
    add("grant_types_supported", json!(GrantType::ALL));
    add("subject_types_supported", json!(["public"]));
    add("id_token_signing_alg_values_supported", json!(algorithms));
    let methods = || AuthMethod::ALL.iter().map(|method| method.as_str());
    let with_secret: Vec<_> = methods().filter(|name| *name != "none").collect();
    let methods: Vec<_> = methods().collect();
    add("token_endpoint_auth_methods_supported", json!(methods));
    // With which clients may sign assertions: all that we can verify, whatever we sign with.
    let assertions = json!(SigningAlgorithm::ALL);
    for endpoint in ["token", "introspection", "revocation"] {
        let name = format!("{endpoint}_endpoint_auth_signing_alg_values_supported");
        add(&name, assertions.clone());
    }
    add("introspection_endpoint", json!(endpoints.introspection));
    add(
        "introspection_endpoint_auth_methods_supported",
        json!(with_secret),
    );
    add("revocation_endpoint", json!(endpoints.revocation));
    add("revocation_endpoint_auth_methods_supported", json!(methods));
    add("code_challenge_methods_supported", json!(pkce::METHODS));
    add("claim_types_supported", json!(["normal"]));
    add("claims_supported", json!(claims::supported()));
    add("claims_parameter_supported", json!(true));
    add("acr_values_supported", json!(acr::SUPPORTED));
    add("prompt_values_supported", json!(prompt::SUPPORTED));
    add("ui_locales_supported", json!(ui_locales));
    add("request_parameter_supported", json!(false));
    // Without this member the default would be true (Discovery §3).
    add("request_uri_parameter_supported", json!(false));
    add(
        "authorization_response_iss_parameter_supported",
        json!(true),
    );
    Value::Object(document)
}
