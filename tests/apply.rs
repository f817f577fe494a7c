//! A file in git says who is there: what it would change, what it names no more, and what is wrong with it.

use std::fs;

use serde_json::{Value, json};

use crate::support::installation::Installation;
use crate::support::op::{Database, SECRET};

/// With a file as it was applied last.
fn applied(database: Database) -> Installation {
    let installation = Installation::new(database);
    write(&installation, &before());
    installation.run(&["apply", "people.json"]);
    installation
}

fn write(installation: &Installation, seed: &Value) {
    fs::write(installation.path("people.json"), seed.to_string()).unwrap();
}

fn before() -> Value {
    json!({
        "users": [
            { "email": "alice@example.test", "password": "correct-horse-battery", "groups": ["staff"] },
            { "email": "bob@example.test" }
        ],
        "clients": [
            { "client_id": "notes", "client_secret": SECRET, "redirect_uris": ["https://notes.example/callback"] },
            { "client_id": "old", "client_secret": SECRET, "redirect_uris": ["https://old.example/callback"] }
        ]
    })
}

fn after() -> Value {
    json!({
        "users": [{ "email": "alice@example.test", "password": "battery-staple-correct", "groups": ["staff", "admins"] }],
        "clients": [
            { "client_id": "notes", "client_secret": "another-secret-of-more-than-thirty-two",
              "redirect_uris": ["https://notes.example/callback", "https://notes.example/other"] },
            { "client_id": "new", "redirect_uris": ["https://new.example/callback"] }
        ]
    })
}

fn names(installation: &Installation, list: &str, field: &str) -> Vec<String> {
    let all = installation.objects(&[list, "list"]);
    all.iter()
        .map(|one| one[field].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_dry_run_prints_the_difference_and_changes_nothing() {
    for database in Database::all() {
        let installation = applied(database);
        let rehearse = || installation.answer(&["apply", "people.json", "--dry-run"]);
        let (code, out) = rehearse();
        assert_eq!(code, 0, "{out}");
        assert!(out.starts_with("4 unchanged\n"), "{out}");
        write(&installation, &after());
        let events = || {
            let all = installation.objects(&["audit", "export"]).into_iter();
            all.filter(|event| event["event"] != "data.exported")
                .count()
        };
        let before = events();
        let (code, out) = rehearse();
        assert_eq!(code, 1, "{out}");
        for line in [
            "created client new",
            "updated user alice@example.test",
            "    groups: [\"staff\"] -> [\"staff\",\"admins\"]",
            "    password: another one",
            "updated client notes",
            "    client_secret: another one",
            "Nothing was written: this is what would be.",
        ] {
            assert!(out.lines().any(|found| found == line), "{line}\n{out}");
        }
        assert!(out.contains("https://notes.example/other"), "{out}");
        for secret in [
            "battery-staple-correct",
            "another-secret",
            "$argon2",
            "client_secret=",
        ] {
            assert!(!out.contains(secret), "{out}");
        }
        assert_eq!(events(), before);
        assert_eq!(
            names(&installation, "clients", "client_id"),
            ["notes", "old"]
        );
        assert_eq!(rehearse().0, 1, "it is as different as before");
        installation.run(&["apply", "people.json"]);
        assert_eq!(rehearse().0, 0);
    }
}

#[test]
fn every_wrong_lifetime_of_an_app_is_told_at_once_with_its_line() {
    let installation = Installation::new(Database::Sqlite);
    let text = "[[clients]]
client_id = \"notes\"
redirect_uris = [\"https://notes.example/callback\"]
[clients.tokens]
code = true
access = \"soon\"
id = \"90d\"
acces = \"5m\"
idle = [\"1d\"]
refresh_idle = \"0s\"
refresh_absolute = 1.5
refresh_retry_window = \"5s\"
";
    fs::write(installation.path("apps.toml"), text).unwrap();
    let said = installation.refused(&["apply", "apps.toml"]);
    let told: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("apps.toml:"))
        .filter_map(|line| line.split_once(" (notes): "))
        .collect();
    let expected = [
        ("5: clients[0].tokens.code", "is a duration"),
        ("6: clients[0].tokens.access", "is a duration"),
        ("7: clients[0].tokens.id", "is a duration"),
        ("8: clients[0].tokens.acces", "is not known"),
        ("9: clients[0].tokens.idle", "is not known"),
        ("9: clients[0].tokens.idle", "is a duration"),
        ("10: clients[0].tokens.refresh_idle", "is a duration"),
        ("11: clients[0].tokens.refresh_absolute", "is a duration"),
    ];
    assert_eq!(told.len(), expected.len(), "{said}");
    for ((place, problem), (where_, begins)) in told.iter().zip(expected) {
        assert_eq!(*place, where_, "{said}");
        assert!(problem.starts_with(begins), "{said}");
    }
}

#[test]
fn only_what_came_from_a_file_goes_and_only_when_told_to() {
    for database in Database::all() {
        let installation = applied(database);
        installation.run(&[
            "clients",
            "create",
            "--id",
            "by-hand",
            "--redirect-uri",
            "https://hand.example/",
        ]);
        write(&installation, &after());
        installation.run(&["apply", "people.json"]);
        assert_eq!(
            names(&installation, "clients", "client_id"),
            ["by-hand", "new", "notes", "old"]
        );
        let (code, out) = installation.answer(&["apply", "people.json", "--prune", "--dry-run"]);
        assert_eq!(code, 1);
        assert!(
            out.contains("deleted user bob@example.test\ndeleted client old\n"),
            "{out}"
        );
        assert_eq!(names(&installation, "users", "email").len(), 2);
        installation.run(&["apply", "people.json", "--prune"]);
        assert_eq!(
            names(&installation, "users", "email"),
            ["alice@example.test"]
        );
        assert_eq!(
            names(&installation, "clients", "client_id"),
            ["by-hand", "new", "notes"]
        );
        assert_eq!(
            installation
                .answer(&["apply", "people.json", "--prune", "--dry-run"])
                .0,
            0
        );
        let events = installation.objects(&["audit", "export"]);
        let deleted = |name: &str| events.iter().filter(|event| event["event"] == name).count();
        assert_eq!((deleted("user.deleted"), deleted("client.deleted")), (1, 1));
    }
}

/// Writes a file, and answers how applying it ends and what is said of each mistake.
fn told(installation: &Installation, name: &str, text: &str) -> Vec<Value> {
    fs::write(installation.path(name), text).unwrap();
    let (code, out) = installation.answer(&["apply", name, "--output", "json"]);
    assert_eq!(code, 1, "{out}");
    let lines = out.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn places(mistakes: &[Value]) -> Vec<(u64, &str)> {
    let mistakes = mistakes.iter();
    let places = mistakes.map(|mistake| {
        let line = mistake["line"].as_u64().unwrap_or_default();
        (line, mistake["key"].as_str().unwrap_or_default())
    });
    places.collect()
}

const BAD: &str = r#"
[[users]]
email = "taken@example.test"
sub = "another"
password = "x"
admin = "yes"
groups = [1]

[[users]]
email = "taken@example.test"
birthday = "today"

[[users]]
admin = 5

[[groups]]
name = "staff"
members = ["nobody@example.test"]

[[scopes]]
name = "read"
claims = ["shoe_size"]

[[clients]]
client_id = "notes"
client_name = 5
redirect_uris = ["https://notes.example/#"]
scope = "openid read"
tokens = { code = -5, access = "+60s" }
refresh_retry_window = 1979-05-27
"#;

#[test]
fn every_mistake_is_told_at_once_with_its_line_also_those_against_the_database() {
    for database in Database::all() {
        let installation = Installation::new(database);
        installation.apply(&json!({ "users": [{ "email": "taken@example.test" }] }));
        let before = installation.objects(&["export"]);
        let mistakes = told(&installation, "bad.toml", BAD);
        let expected = [
            (4, "users[0].sub"),
            (5, "users[0].password"),
            (6, "users[0].admin"),
            (7, "users[0].groups[0]"),
            (10, "users[1].email"),
            (11, "users[1].birthday"),
            (13, "users[2].email"),
            (14, "users[2].admin"),
            (18, "groups[0].members[0]"),
            (22, "scopes[0].claims[0]"),
            (26, "clients[0].client_name"),
            (27, "clients[0].redirect_uris[0]"),
            (29, "clients[0].tokens.code"),
            (29, "clients[0].tokens.access"),
            (30, "clients[0].refresh_retry_window"),
        ];
        assert_eq!(places(&mistakes), expected, "{mistakes:#?}");
        assert_eq!(mistakes[0]["file"], "bad.toml");
        assert_eq!(mistakes[1]["entry"], "taken@example.test");
        let said = installation.refused(&["apply", "bad.toml"]);
        for line in [
            "bad.toml:6: users[0].admin (taken@example.test): is true or false, not a text",
            "bad.toml:13: users[2].email: is missing",
            "bad.toml:30: clients[0].refresh_retry_window (notes): is a duration such as \"60s\" or \"10m\", not a date (which stands in quotes)",
        ] {
            assert!(said.lines().any(|found| found == line), "{line}\n{said}");
        }
        assert_eq!(installation.objects(&["export"]), before);
    }
}

#[test]
fn a_mistake_in_json_has_a_line_too_and_nothing_is_said_twice() {
    let installation = Installation::new(Database::Sqlite);
    let text = "{ \"users\": [\n  { \"email\": \"a@example.test\",\n    \"email\": \"b@example.test\" },\n  { \"emial\": \"c\", \"claims\": { \"name\": [] } }\n],\n\"users\": [], \"apps\": {} }";
    let mistakes = told(&installation, "bad.json", text);
    let expected = [
        (3, "users[0].email"),
        (4, "users[1].emial"),
        (4, "users[1].claims.name"),
        (6, "users"),
        (6, "apps"),
    ];
    assert_eq!(places(&mistakes), expected, "{mistakes:#?}");
    let mistakes = told(&installation, "bad.json", "{\n\"users\": [\n}");
    assert_eq!(places(&mistakes), [(3, "")], "{mistakes:#?}");
}

#[test]
fn no_mistake_shows_what_may_be_a_secret() {
    let installation = Installation::new(Database::Sqlite);
    for text in [
        "[[users]]\nemail = \"a@example.test\"\npassword = 81274659013857\n",
        "[[users]]\nemail = \"a@example.test\"\npassword = \"81274659013857\n",
        "[[users]]\nemail = \"a@example.test\"\npassword = 81274659013857x\n",
        "[[users]]\nemail = \"a@example.test\"\npassword = x81274659013857 y\n",
        "[[users]]\nemail = \"a@example.test\"\nadmin = \"81274659013857\"\n",
        "[[users]]\nemail = \"a@example.test\"\ngroups = \"81274659013857\"\n",
        "[[clients]]\nclient_id = \"notes\"\nclient_secret = 81274659013857\n",
        "[[clients]]\nclient_id = \"notes\"\ntokens = \"81274659013857\"\n",
        "[[clients]]\nclient_id = \"notes\"\nclient_secret_hashes = [{ sha256 = 81274659013857 }]\n",
        "{ \"users\": [\n\n{ \"email\": \"a@example.test\", \"password\": 81274659013857 }] }",
        "{ \"users\": [\n\n{ \"email\": \"a@example.test\", \"password\": 81274659013857x }] }",
    ] {
        // Without an ending, what it holds says how it is written.
        fs::write(installation.path("seed"), text).unwrap();
        let said = installation.refused(&["apply", "seed"]);
        assert!(!said.contains("812746"), "{said}");
        assert!(said.contains("seed:3: "), "{said}");
    }
}

#[test]
fn every_line_that_is_not_toml_is_told() {
    let installation = Installation::new(Database::Sqlite);
    let text = "[[users]]\nemail = \"a@example.test\"\npassword = \"x\nadmin = true\nadmin = false\nsub = ?\n";
    let mistakes = told(&installation, "bad.toml", text);
    let lines: Vec<_> = places(&mistakes).iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 5, 6], "{mistakes:#?}");
}

#[test]
fn an_empty_input_prunes_nothing() {
    let installation = applied(Database::Sqlite);
    for text in ["", "\n# nothing\n", "{}"] {
        fs::write(installation.path("empty"), text).unwrap();
        let said = installation.refused(&["apply", "empty", "--prune"]);
        assert!(said.contains("users = []"), "{said}");
    }
    assert_eq!(names(&installation, "users", "email").len(), 2);
    fs::write(installation.path("none.toml"), "users = []\n").unwrap();
    installation.run(&["apply", "none.toml", "--prune"]);
    assert_eq!(names(&installation, "users", "email"), [""; 0]);
}

#[test]
fn a_mark_at_the_start_of_a_file_is_no_part_of_it() {
    let installation = Installation::new(Database::Sqlite);
    for (name, text) in [
        ("seed.toml", "\u{feff}users = []"),
        ("seed.json", "\u{feff}{\"users\": []}"),
        ("seed", "\u{feff} {\"users\": []}"),
    ] {
        fs::write(installation.path(name), text).unwrap();
        installation.run(&["apply", name]);
    }
}

#[test]
fn a_difference_is_told_in_the_words_of_a_file() {
    let installation = Installation::new(Database::Sqlite);
    let file = |tokens: Value, name: &str| {
        json!({
            "users": [{ "email": "alice@example.test", "claims": { "name": name, "locale": "en" } }],
            "clients": [{ "client_id": "notes", "client_secret": SECRET, "tokens": tokens,
                          "redirect_uris": ["https://notes.example/callback"] }]
        })
    };
    write(&installation, &file(json!({ "code": "30s" }), "Alice"));
    installation.run(&["apply", "people.json"]);
    let after = file(json!({ "code": "60s", "access": "5m" }), "Alice Archer");
    write(&installation, &after);
    let (_, out) = installation.answer(&["apply", "people.json", "--dry-run"]);
    let expected = "updated user alice@example.test\n    claims.name: \"Alice\" -> \"Alice Archer\"\n\
                    updated client notes\n    tokens.access: nothing -> 300\n    tokens.code: 30 -> 60\n0 unchanged\n";
    assert!(out.starts_with(expected), "{out}");
}

#[test]
fn a_group_that_goes_takes_its_memberships_along_and_says_whose() {
    for database in Database::all() {
        let installation = Installation::new(database);
        let people =
            json!([{ "email": "alice@example.test" }, { "email": "by-hand@example.test" }]);
        installation.apply(&json!({ "groups": [{ "name": "staff" }] }));
        let store = json!({ "users": people });
        installation.apply(&store);
        let by_hand = json!({ "groups": [{ "name": "staff", "members": ["alice@example.test", "by-hand@example.test"] }] });
        installation.apply(&by_hand);
        write(&installation, &store);
        let (code, out) = installation.answer(&["apply", "people.json", "--prune", "--dry-run"]);
        assert_eq!(code, 1);
        let mut lines = out.lines();
        assert_eq!(lines.next(), Some("deleted group staff"), "{out}");
        let mut left: Vec<_> = lines.take(2).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "    members: without alice@example.test",
                "    members: without by-hand@example.test"
            ]
        );
    }
}

#[test]
fn a_group_that_stands_twice_with_a_person_counts_once() {
    let installation = Installation::new(Database::Sqlite);
    installation
        .apply(&json!({ "users": [{ "email": "alice@example.test", "groups": ["a", "b", "a"] }] }));
    let people = installation.objects(&["users", "list"]);
    assert_eq!(people[0]["groups"], json!(["a", "b"]));
}
