// npm's oidc-client-ts in a real browser: a page of scripts on an origin of its own signs a person in.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { check } from "./check.js";
import { Browser } from "./webdriver.js";

const { ISSUER, LOGIN, PASSWORD, SPA } = process.env;
const LIBRARY = new URL("./node_modules/oidc-client-ts/dist/browser/oidc-client-ts.min.js", import.meta.url);

const app = await serve();
let browser;
try {
  await check("oidc-client-ts: Chromium starts", async () => {
    browser = await Browser.start();
  });
  if (browser) await checks();
} finally {
  await browser?.stop();
  app.close();
  app.closeAllConnections?.();
}

async function checks() {
  await check("oidc-client-ts: cancelling comes back as access_denied", async () => {
    await browser.open(`${SPA}/`);
    await browser.click("#sign-in");
    await browser.click("#login-cancel");
    assert.equal(await browser.text("#error"), "access_denied");
    assert.deepEqual(await browser.errors(), []);
  });

  await check("oidc-client-ts: sign-in, consent, code with PKCE, UserInfo across origins", async () => {
    await browser.open(`${SPA}/`);
    await browser.click("#sign-in");
    await browser.type("input[name=login]", LOGIN);
    await browser.type("input[name=password]", PASSWORD);
    await browser.click("#login-submit");
    await browser.click("#consent-allow");
    assert.equal(await browser.text("#name"), "Alice Example");
    assert.equal(await browser.text("#email"), LOGIN);
    assert.equal((await browser.address()).split("?")[0], `${SPA}/callback`);
  });

  await check("oidc-client-ts: no error in the browser's console, nothing blocked by a policy", async () => {
    assert.deepEqual(await browser.errors(), []);
  });

  await check("oidc-client-ts: a second sign-in asks nothing", async () => {
    await browser.open(`${SPA}/`);
    await browser.click("#sign-in");
    assert.equal(await browser.text("#name"), "Alice Example");
    assert.deepEqual(await browser.errors(), []);
  });

  await check("oidc-client-ts: a refresh token renews without a page, twice", async () => {
    for (const turn of [1, 2]) {
      await browser.click("#renew");
      assert.equal(await browser.text(`#renewed-${turn}`), "new tokens");
    }
    assert.deepEqual(await browser.errors(), []);
  });

  await check("oidc-client-ts: sign-out at the issuer, and back", async () => {
    await browser.click("#sign-out");
    assert.equal(await browser.text("#signed-out"), "nobody");
    assert.equal((await browser.address()).split("?")[0], `${SPA}/signed-out`);
    assert.deepEqual(await browser.errors(), []);
  });

  await check("oidc-client-ts: revocation across origins", async () => {
    await browser.open(`${SPA}/`);
    await browser.click("#sign-in");
    await browser.type("input[name=login]", LOGIN);
    await browser.type("input[name=password]", PASSWORD);
    await browser.click("#login-submit");
    await browser.click("#revoke");
    assert.equal(await browser.text("#revoked"), "400 invalid_grant 401");
    // The two refusals that were asked for are in the console; a request that the policy blocks would have another text.
    const expected = (line) => /status of 40[01]/.test(line);
    assert.deepEqual((await browser.errors()).filter((line) => !expected(line)), []);
  });

  await check("a browser: response_mode=form_post posts itself", async () => {
    const query = new URLSearchParams({
      client_id: "spa",
      redirect_uri: `${SPA}/posted`,
      response_type: "code",
      response_mode: "form_post",
      scope: "openid",
      state: "a state",
      code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
      code_challenge_method: "S256",
    });
    await browser.open(`${ISSUER}/authorize?${query}`);
    assert.equal(await browser.text("#posted"), "code iss state");
    assert.deepEqual(await browser.errors(), []);
  });
}

async function serve() {
  const page = (await readFile(new URL("./spa.html", import.meta.url), "utf8")).replace("@ISSUER@", ISSUER);
  const files = {
    "/": ["text/html", page],
    "/callback": ["text/html", page],
    "/signed-out": ["text/html", page],
    "/spa.js": ["text/javascript", await readFile(new URL("./spa.js", import.meta.url))],
    "/oidc-client-ts.js": ["text/javascript", await readFile(LIBRARY)],
  };
  const server = createServer(async (request, response) => {
    const path = request.url.split("?")[0];
    if (path === "/posted" && request.method === "POST") {
      let body = "";
      for await (const part of request) body += part;
      const names = [...new URLSearchParams(body).keys()].sort().join(" ");
      response.setHeader("content-type", "text/html");
      response.end(`<!doctype html><link rel="icon" href="data:,"><p id="posted">${names}</p>`);
    } else if (files[path]) {
      response.setHeader("content-type", `${files[path][0]}; charset=utf-8`);
      response.end(files[path][1]);
    } else {
      response.writeHead(404).end();
    }
  });
  // The name localhost may lead to either family.
  server.listen(Number(new URL(SPA).port));
  await new Promise((resolve, reject) => server.once("listening", resolve).once("error", reject));
  return server;
}
