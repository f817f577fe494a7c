// npm's openid-client: discovery, PKCE, state, nonce, every way our clients authenticate, ID token, UserInfo.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import * as client from "openid-client";
import { check } from "./check.js";
import { Person, form } from "./person.js";

const { ISSUER, LOGIN, PASSWORD, SECRET } = process.env;
const CALLBACK = "http://localhost:9/callback";

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
  await signIn(await discover("basic", client.ClientSecretBasic(SECRET)), CALLBACK, "form_post");
});

await check("openid-client: a wrong client secret is refused with 401", async () => {
  const config = await discover("basic", client.ClientSecretBasic("not the secret"));
  await assert.rejects(signIn(config, CALLBACK), { status: 401 });
});

await check("openid-client: a wrong code_verifier is refused as invalid_grant", async () => {
  const config = await discover("basic", client.ClientSecretBasic(SECRET));
  const other = client.randomPKCECodeVerifier();
  await assert.rejects(signIn(config, CALLBACK, undefined, other), { error: "invalid_grant" });
});

async function discover(id, authentication) {
  const config = await client.discovery(new URL(ISSUER), id, undefined, authentication, {
    execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks],
  });
  config.timeout = 20;
  return config;
}

async function signIn(config, redirectUri, responseMode, wrongVerifier) {
  const verifier = client.randomPKCECodeVerifier();
  const state = client.randomState();
  const nonce = client.randomNonce();
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: "openid profile email",
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state,
    nonce,
    ...(responseMode && { response_mode: responseMode }),
  });
  const end = await new Person(ISSUER).complete(url, LOGIN, PASSWORD);
  const tokens = await client.authorizationCodeGrant(config, response(end, redirectUri, responseMode), {
    pkceCodeVerifier: wrongVerifier ?? verifier,
    expectedState: state,
    expectedNonce: nonce,
    idTokenExpected: true,
  });
  const claims = tokens.claims();
  const person = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
  assert.equal(person.email, LOGIN);
  assert.equal(person.email_verified, true);
  assert.equal(person.name, "Alice Example");
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
