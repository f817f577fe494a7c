# Short, concrete, to the person. Keys are the same in every language.

development-mode = Development mode
privacy = Privacy
terms = Terms
email = E-mail
password = Password
cancel = Cancel
allow = Allow
continue = Continue
new = new
optional = Optional.
sign-out = Sign out
to-continue-to = to continue to { $app }
back-to = Back to { $app }
moment = { $day } { $month ->
    [1] January
    [2] February
    [3] March
    [4] April
    [5] May
    [6] June
    [7] July
    [8] August
    [9] September
    [10] October
    [11] November
   *[12] December
} { $year }, { $time } UTC

# Sign-in
sign-in-title = Sign in
sign-in-confirm-title = Confirm it’s you
sign-in-confirm-note = Enter your password once more.
remember = Stay signed in on this browser
sign-in-mismatch = That e-mail and password don’t match. Check both and try again.
sign-in-slowed = { $minutes ->
    [one] Too many tries for now. Try again in 1 minute.
   *[other] Too many tries for now. Try again in { $minutes } minutes.
}
sign-in-busy = Many people are signing in right now. Try again in a few seconds.
sign-in-expired = This page was open for a long time, so we started it afresh. Sign in to go on.
sign-in-missing-login = Enter your e-mail.
sign-in-missing-password = Enter your password.
sign-in-again = The app asks you to sign in again before it goes on.

# Choosing an account
choose-title = Choose an account
choose-signed-out = Signed out
choose-other = Use another account

# Consent
consent-title = { $app } wants to know you
consent-as = As { $account }
consent-switch = use another account
consent-caution = Nobody here has checked this app. Your answer goes to { $host }. Allow it only if you know who runs it.
scope-profile = Your name and profile
scope-email = Your e-mail address
scope-address = Your postal address
scope-phone = Your phone number
scope-groups = The groups you belong to
scope-offline-access = Stay signed in while you’re away
scope-other = Access to “{ $scope }”
claim-name = Your name
claim-birthdate = Your date of birth
claim-picture = Your picture
claim-other = Your “{ $claim }”

# On the way back to the app
form-post-title = Signed in

# Signed in, signed out
home-title = You’re signed in
home-since = Since { $time }
home-add = Add another account
home-test-app = Open the test app
signed-out-title = You’re signed out
signed-out-words = Nobody is signed in on this browser. Apps you opened may keep their own sign-in.
signed-out-others = Other accounts are still signed in on this browser.

# Signing out at an app’s wish
sign-out-title = Do you want to sign out?
sign-out-by = { $app } wants to sign you out
sign-out-all = All accounts
sign-out-stay = Stay signed in

# Errors
for-the-developer = For the app’s developer
request-id = Request
error-redirect-uri = This link to sign in isn’t right
error-redirect-uri-words = The app sent an address that it hasn’t registered, so we stopped here. Nothing was shared. Go back to the app and try again; if it happens again, tell its makers.
error-unknown-client = We don’t know this app
error-unknown-client-words = It isn’t registered here, so we stopped. Nothing was shared. Go back to the app and tell its makers.
error-request = The app’s request has a mistake
error-request-words = We stopped before anything was shared. Go back to the app and try again; if it happens again, tell its makers.
error-sign-out = This link to sign out isn’t right
error-sign-out-words = The app’s request has a mistake, so we stopped here and nobody was signed out. You can still sign out on our own page. If it happens again, tell the app’s makers.
error-sign-out-here = See who is signed in
error-forgery = This page is out of date
error-forgery-words = It was opened in another browser, or its cookies were cleared. Nothing was changed. Go back and start again.
error-not-found = There’s nothing here
error-not-found-words = The address may have a typing mistake, or the page has moved.
error-method = This address works another way
error-method-words = It can’t be opened like this. Go back and use the page’s own buttons.
error-too-many = That was a lot at once
error-too-many-words = More requests came from your network than we answer in a minute. Nothing was lost. Wait a moment, then try again.
error-unavailable = We’ll be back in a moment
error-unavailable-words = The server can’t answer right now. Nothing was lost. Try again in a minute.
error-back-to-app = Back to { $app }
error-detail-redirect-uri = redirect_uri received; what is marked differs from the registered one
error-detail-post-logout-redirect-uri = post_logout_redirect_uri received; what is marked differs from the registered one
error-detail-reason = Reason
error-fault = Something broke on our side
error-fault-words = It isn’t your fault, and we have a note of it. Try again; if it stays, quote the request below.
wrong-address-title = This is the wrong address
wrong-address-words = Sign-in works only at the address this server is set up with.
wrong-address-opened = You opened
wrong-address-configured = This server is set up as
wrong-address-go = Go to the right address
wrong-address-change = If you run this server and the first address is the right one, change this line of its configuration:

# The test app
dev-title = Test app
dev-request = Sign-in request
dev-scopes = Scopes
dev-prompt = Prompt
dev-prompt-absent = not sent
dev-id-token-claims = Claims in the ID token
dev-refresh = Refresh tokens
dev-steps = What happened
dev-sent = Sent
dev-received = Received
dev-claim = Claim
dev-value = Value
dev-raw = As sent
dev-empty-title = Nothing has happened yet
dev-empty-words = Sign in, and each request, the decoded tokens and the times appear here.
