# Kurz, konkret, an die Person. Die Schlüssel sind in jeder Sprache dieselben.

development-mode = Entwicklungsmodus
privacy = Datenschutz
terms = Nutzungsbedingungen
email = E-Mail
password = Passwort
cancel = Abbrechen
allow = Erlauben
continue = Weiter
new = neu
optional = Freiwillig.
sign-out = Abmelden
to-continue-to = weiter zu { $app }
back-to = Zurück zu { $app }
moment = { $day }. { $month ->
    [1] Januar
    [2] Februar
    [3] März
    [4] April
    [5] Mai
    [6] Juni
    [7] Juli
    [8] August
    [9] September
    [10] Oktober
    [11] November
   *[12] Dezember
} { $year }, { $time } UTC

# Anmelden
sign-in-title = Anmelden
sign-in-confirm-title = Sind Sie es?
sign-in-confirm-note = Geben Sie Ihr Passwort noch einmal ein.
remember = In diesem Browser angemeldet bleiben
sign-in-mismatch = E-Mail und Passwort passen nicht zusammen. Prüfen Sie beides und versuchen Sie es noch einmal.
sign-in-slowed = { $minutes ->
    [one] Das waren zu viele Versuche. In 1 Minute geht es weiter.
   *[other] Das waren zu viele Versuche. In { $minutes } Minuten geht es weiter.
}
sign-in-busy = Gerade melden sich viele Menschen an. Versuchen Sie es in ein paar Sekunden noch einmal.
sign-in-expired = Diese Seite war lange offen, deshalb beginnt sie von vorn. Melden Sie sich an, um fortzufahren.
sign-in-missing-login = Geben Sie Ihre E-Mail-Adresse ein.
sign-in-missing-password = Geben Sie Ihr Passwort ein.
sign-in-again = Bevor es weitergeht, möchte die App, dass Sie sich noch einmal anmelden.

# Konto wählen
choose-title = Konto wählen
choose-signed-out = Abgemeldet
choose-other = Anderes Konto verwenden

# Zustimmung
consent-title = { $app } möchte Sie kennenlernen
consent-as = Als { $account }
consent-switch = anderes Konto verwenden
consent-caution = Niemand hat diese App hier geprüft. Ihre Antwort geht an { $host }. Erlauben Sie es nur, wenn Sie den Betreiber kennen.
scope-profile = Ihr Name und Ihr Profil
scope-email = Ihre E-Mail-Adresse
scope-address = Ihre Postanschrift
scope-phone = Ihre Telefonnummer
scope-groups = Ihre Gruppen
scope-offline-access = Angemeldet bleiben, auch wenn Sie nicht da sind
scope-other = Zugriff auf „{ $scope }“
claim-name = Ihr Name
claim-birthdate = Ihr Geburtsdatum
claim-picture = Ihr Bild
claim-other = Ihre Angabe „{ $claim }“

# Auf dem Weg zurück zur App
form-post-title = Angemeldet

# Angemeldet, abgemeldet
home-title = Sie sind angemeldet
home-since = Seit { $time }
home-add = Weiteres Konto hinzufügen
home-test-app = Test-App öffnen
signed-out-title = Sie sind abgemeldet
signed-out-words = In diesem Browser ist niemand angemeldet. Geöffnete Apps können ihre eigene Anmeldung behalten.
signed-out-others = Andere Konten sind in diesem Browser noch angemeldet.

# Abmelden auf Wunsch einer App
sign-out-title = Möchten Sie sich abmelden?
sign-out-by = { $app } möchte Sie abmelden
sign-out-all = Alle Konten
sign-out-stay = Angemeldet bleiben

# Fehler
for-the-developer = Für die Entwickler der App
request-id = Anfrage
error-redirect-uri = Dieser Link zur Anmeldung stimmt nicht
error-redirect-uri-words = Die App hat eine Adresse geschickt, die sie nicht registriert hat. Deshalb ist hier Schluss; es wurde nichts weitergegeben. Gehen Sie zurück zur App und versuchen Sie es noch einmal. Passiert es wieder, sagen Sie den Herstellern Bescheid.
error-unknown-client = Diese App kennen wir nicht
error-unknown-client-words = Sie ist hier nicht registriert. Deshalb ist hier Schluss; es wurde nichts weitergegeben. Gehen Sie zurück zur App und sagen Sie den Herstellern Bescheid.
error-request = Die Anfrage der App enthält einen Fehler
error-request-words = Es wurde nichts weitergegeben. Gehen Sie zurück zur App und versuchen Sie es noch einmal. Passiert es wieder, sagen Sie den Herstellern Bescheid.
error-sign-out = Dieser Link zur Abmeldung stimmt nicht
error-sign-out-words = Die Anfrage der App enthält einen Fehler. Deshalb ist hier Schluss; es wurde niemand abgemeldet. Abmelden können Sie sich weiterhin auf unserer eigenen Seite. Passiert es wieder, sagen Sie den Herstellern der App Bescheid.
error-sign-out-here = Nachsehen, wer angemeldet ist
error-forgery = Diese Seite ist veraltet
error-forgery-words = Sie wurde in einem anderen Browser geöffnet, oder die Cookies wurden gelöscht. Es wurde nichts geändert. Gehen Sie zurück und beginnen Sie von vorn.
error-not-found = Hier ist nichts
error-not-found-words = Vielleicht enthält die Adresse einen Tippfehler, oder die Seite ist umgezogen.
error-method = Diese Adresse funktioniert anders
error-method-words = So lässt sie sich nicht öffnen. Gehen Sie zurück und benutzen Sie die Schaltflächen der Seite.
error-too-many = Das war viel auf einmal
error-too-many-words = Aus Ihrem Netz kamen mehr Anfragen, als wir in einer Minute beantworten. Es ging nichts verloren. Warten Sie einen Augenblick und versuchen Sie es noch einmal.
error-unavailable = Gleich geht es weiter
error-unavailable-words = Der Server kann gerade nicht antworten. Es ist nichts verloren. Versuchen Sie es in einer Minute noch einmal.
error-back-to-app = Zurück zu { $app }
error-detail-redirect-uri = Empfangene redirect_uri; das Markierte weicht von der registrierten ab
error-detail-post-logout-redirect-uri = Empfangene post_logout_redirect_uri; das Markierte weicht von der registrierten ab
error-detail-reason = Grund
error-fault = Bei uns ist etwas kaputtgegangen
error-fault-words = Es liegt nicht an Ihnen, und wir haben es notiert. Versuchen Sie es noch einmal. Bleibt es dabei, nennen Sie die Anfrage unten.
wrong-address-title = Das ist die falsche Adresse
wrong-address-words = Die Anmeldung funktioniert nur unter der Adresse, auf die dieser Server eingestellt ist.
wrong-address-opened = Sie haben geöffnet
wrong-address-configured = Dieser Server ist eingestellt auf
wrong-address-go = Zur richtigen Adresse
wrong-address-change = Wenn Sie diesen Server betreiben und die erste Adresse die richtige ist, ändern Sie diese Zeile der Konfiguration:

# Die Test-App
dev-title = Test-App
dev-request = Anmeldeanfrage
dev-scopes = Scopes
dev-prompt = Prompt
dev-prompt-absent = nicht gesendet
dev-id-token-claims = Claims im ID-Token
dev-refresh = Token erneuern
dev-steps = Was geschah
dev-sent = Gesendet
dev-received = Empfangen
dev-claim = Claim
dev-value = Wert
dev-raw = Wie gesendet
dev-empty-title = Noch ist nichts geschehen
dev-empty-words = Melden Sie sich an. Dann stehen hier jede Anfrage, die entschlüsselten Token und die Zeiten.
