// npm's openid-client: discovery, PKCE, state, nonce, every way our clients authenticate, ID token, UserInfo, and the
// whole life of a token after that.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import * as client from "openid-client";
import { check } from "./check.js";
import { Person, form } from "./person.js";

const { ISSUER, LOGIN, PASSWORD, SECRET, KEYS } = process.env;
const CALLBACK = "http://localhost:9/callback";
const SIGNED_OUT = "http://localhost:9/signed-out";
const KINDS = {
  ES256: { name: "ECDSA", namedCurve: "P-256" },
  RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
  PS256: { name: "RSA-PSS", hash: "SHA-256" },
};
const OFFLINE = "openid profile email offline_access";
const API = "https://orders.example/";

await check("openid-client: discovery names this issuer, S256 and the user's claims", async () => {
  const server = (await discover("basic", client.ClientSecretBasic(SECRET))).serverMetadata();
  assert.equal(server.issuer, ISSUER);
  assert.ok(server.supportsPKCE("S256"));
  assert.ok(server.claims_supported.includes("email"));
});

await check("openid-client: a code with PKCE for a client that uses client_secret_basic", async () => {
  await signIn(await discover("basic", client.ClientSecretBasic(SECRET)), CALLBACK);
});

await check("openid-client: a code with PKCE for a client that uses client_secret_post", async () => {
  await signIn(await discover("post", client.ClientSecretPost(SECRET)), CALLBACK);
});

await check("openid-client: a native client on a loopback port of its own", async () => {
  // Nothing was registered for this port: RFC 8252 §7.3.
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  server.close();
  await signIn(await discover("native", client.None()), `http://127.0.0.1:${port}/callback`);
});

await check("openid-client: response_mode=form_post", async () => {
  await signIn(await discover("basic", client.ClientSecretBasic(SECRET)), CALLBACK, { responseMode: "form_post" });
});

await check("openid-client: a wrong client secret is refused with 401", async () => {
  const config = await discover("basic", client.ClientSecretBasic("not the secret"));
  await assert.rejects(signIn(config, CALLBACK), { status: 401 });
});

await check("openid-client: a wrong code_verifier is refused as invalid_grant", async () => {
  const config = await discover("basic", client.ClientSecretBasic(SECRET));
  const other = client.randomPKCECodeVerifier();
  await assert.rejects(signIn(config, CALLBACK, { wrongVerifier: other }), { error: "invalid_grant" });
});

await check("openid-client: refresh, also when the answer was lost, and a replay ends the family", async () => {
  const config = await discover("basic", client.ClientSecretBasic(SECRET));
  const first = await signIn(config, CALLBACK, { scope: OFFLINE });
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  assert.notEqual(second.refresh_token, first.refresh_token);
  assert.notEqual(second.access_token, first.access_token);
  const [before, after] = [first.claims(), second.claims()];
  assert.deepEqual([after.sub, after.auth_time, after.sid], [before.sub, before.auth_time, before.sid]);
  const again = await client.refreshTokenGrant(config, first.refresh_token);
  assert.equal(again.refresh_token, second.refresh_token, "the same successor");
  const third = await client.refreshTokenGrant(config, again.refresh_token);
  await assert.rejects(client.refreshTokenGrant(config, first.refresh_token), { error: "invalid_grant" });
  await assert.rejects(client.refreshTokenGrant(config, third.refresh_token), { error: "invalid_grant" });
});

await check("openid-client: introspection, revocation of one access token and of a family", async () => {
  const config = await discover("post", client.ClientSecretPost(SECRET));
  const first = await signIn(config, CALLBACK, { scope: OFFLINE });
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  const isActive = async (token) => (await client.tokenIntrospection(config, token)).active;
  const told = await client.tokenIntrospection(config, first.access_token);
  assert.deepEqual([told.active, told.client_id, told.sub], [true, "post", first.claims().sub]);
  await client.tokenRevocation(config, first.access_token, { token_type_hint: "access_token" });
  assert.deepEqual([await isActive(first.access_token), await isActive(second.access_token)], [false, true]);
  await client.tokenRevocation(config, second.refresh_token);
  assert.deepEqual([await isActive(second.access_token), await isActive(second.refresh_token)], [false, false]);
  await assert.rejects(client.refreshTokenGrant(config, second.refresh_token), { error: "invalid_grant" });
});

await check("openid-client: sign-out at the issuer, and back", async () => {
  const config = await discover("basic", client.ClientSecretBasic(SECRET));
  const person = new Person(ISSUER);
  const tokens = await signIn(config, CALLBACK, { person });
  const state = client.randomState();
  const url = client.buildEndSessionUrl(config, {
    id_token_hint: tokens.id_token,
    post_logout_redirect_uri: SIGNED_OUT,
    state,
  });
  const { left } = await person.complete(url);
  assert.equal(`${left}`, `${SIGNED_OUT}?state=${state}`);
  await assert.rejects(client.fetchUserInfo(config, tokens.access_token, tokens.claims().sub), { status: 401 });
});

await check("openid-client: private_key_jwt with each kind of key, in place of a secret", async () => {
  for (const [name, kind] of Object.entries(KINDS)) {
    const key = await crypto.subtle.importKey("jwk", JSON.parse(KEYS)[name], kind, true, ["sign"]);
    const config = await discover("signer", client.PrivateKeyJwt({ key, kid: name }));
    const tokens = await signIn(config, CALLBACK, { scope: OFFLINE });
    const fresh = await client.refreshTokenGrant(config, tokens.refresh_token);
    assert.equal((await client.tokenIntrospection(config, fresh.access_token)).active, true);
    await client.tokenRevocation(config, fresh.refresh_token);
  }
});

await check("openid-client: a machine's own token for an API", async () => {
  const config = await discover("machine", client.ClientSecretBasic(SECRET));
  const tokens = await client.clientCredentialsGrant(config, { scope: "orders.read", resource: API });
  assert.equal(tokens.scope, "orders.read");
  assert.equal(tokens.refresh_token, undefined);
  const told = await client.tokenIntrospection(config, tokens.access_token);
  assert.deepEqual([told.active, told.client_id, told.aud], [true, "machine", API]);
  await client.tokenRevocation(config, tokens.access_token);
  assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, false);
});

async function discover(id, authentication) {
  const config = await client.discovery(new URL(ISSUER), id, undefined, authentication, {
    execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks],
  });
  config.timeout = 20;
  return config;
}

async function signIn(config, redirectUri, { responseMode, wrongVerifier, scope, person } = {}) {
  const verifier = client.randomPKCECodeVerifier();
  const state = client.randomState();
  const nonce = client.randomNonce();
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: scope ?? "openid profile email",
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state,
    nonce,
    ...(responseMode && { response_mode: responseMode }),
  });
  const end = await (person ?? new Person(ISSUER)).complete(url, LOGIN, PASSWORD);
  const tokens = await client.authorizationCodeGrant(config, response(end, redirectUri, responseMode), {
    pkceCodeVerifier: wrongVerifier ?? verifier,
    expectedState: state,
    expectedNonce: nonce,
    idTokenExpected: true,
  });
  const claims = tokens.claims();
  const about = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
  assert.equal(about.email, LOGIN);
  assert.equal(about.email_verified, true);
  assert.equal(about.name, "Alice Example");
  return tokens;
}

// What the client's own server would see: an address, or a posted form.
function response(end, redirectUri, responseMode) {
  if (responseMode !== "form_post") {
    assert.ok(end.left, `the browser stayed at ${end.url}`);
    assert.equal(`${end.left}`.split("?")[0], redirectUri);
    return end.left;
  }
  assert.ok(end.html, `the browser went to ${end.left} without a form`);
  const { action, fields } = form(end);
  assert.equal(action, redirectUri);
  return new Request(action, { method: "POST", body: new URLSearchParams(fields) });
}
