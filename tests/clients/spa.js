// An app without a server: it signs in, and shows who is there.

const manager = new oidc.UserManager({
  authority: document.documentElement.dataset.issuer,
  client_id: "spa",
  redirect_uri: `${location.origin}/callback`,
  post_logout_redirect_uri: `${location.origin}/signed-out`,
  scope: "openid profile email offline_access",
  loadUserInfo: true,
  automaticSilentRenew: false,
});

function show(id, text, tag = "p") {
  const element = document.createElement(tag);
  element.id = id;
  element.textContent = text;
  document.querySelector("main").append(element);
  return element;
}

function button(id, text, act) {
  show(id, text, "button").addEventListener("click", () => act().catch(failed));
}

function failed(error) {
  show("error", error.error ?? error.message);
}

// What the person can do once they are here. The counts tell one answer from the next.
function signedIn(user) {
  show("email", user.profile.email);
  show("name", user.profile.name);
  let renewed = 0;
  button("renew", "Renew", async () => {
    const before = await manager.getUser();
    const after = await manager.signinSilent();
    const isNew = after.refresh_token !== before.refresh_token && after.access_token !== before.access_token;
    show(`renewed-${(renewed += 1)}`, isNew ? "new tokens" : "the same tokens");
  });
  button("revoke", "Revoke", async () => {
    const { refresh_token, access_token } = await manager.getUser();
    await manager.revokeTokens();
    const { token_endpoint, userinfo_endpoint } = await manager.metadataService.getMetadata();
    const refreshed = await fetch(token_endpoint, {
      method: "POST",
      body: new URLSearchParams({ grant_type: "refresh_token", refresh_token, client_id: "spa" }),
    });
    const person = await fetch(userinfo_endpoint, { headers: { authorization: `Bearer ${access_token}` } });
    show("revoked", `${refreshed.status} ${(await refreshed.json()).error} ${person.status}`);
  });
  button("sign-out", "Sign out", () => manager.signoutRedirect());
}

if (location.pathname === "/callback") {
  manager.signinRedirectCallback().then(signedIn).catch(failed);
} else if (location.pathname === "/signed-out") {
  manager
    .signoutRedirectCallback()
    .then(async () => show("signed-out", (await manager.getUser()) ? "still here" : "nobody"))
    .catch(failed);
} else {
  button("sign-in", "Sign in", () => manager.signinRedirect());
}
