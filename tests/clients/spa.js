// An app without a server: it signs in, and shows who is there.

const manager = new oidc.UserManager({
  authority: document.documentElement.dataset.issuer,
  client_id: "spa",
  redirect_uri: `${location.origin}/callback`,
  scope: "openid profile email",
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

if (location.pathname === "/callback") {
  manager
    .signinRedirectCallback()
    .then(({ profile }) => {
      show("email", profile.email);
      show("name", profile.name);
    })
    .catch((error) => show("error", error.error ?? error.message));
} else {
  show("sign-in", "Sign in", "button").addEventListener("click", () =>
    manager.signinRedirect().catch((error) => show("error", error.message)),
  );
}
