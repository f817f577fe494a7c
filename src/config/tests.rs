use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::sources::variable_name;
use super::*;

const SECRET: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const OTHER_SECRET: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const ISSUER: (&str, &str) = ("LATCHKEY_ISSUER", "https://id.example.test");

/// A folder for one test's files, whose name is cut out of findings.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    fn load(&self, file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let file = Some(self.write("latchkey.toml", file, 0o600));
        self.findings(Sources {
            file,
            environment: owned(environment),
            ..Sources::default()
        })
    }

    fn findings(&self, sources: Sources) -> Result<Config, String> {
        let folder = format!("{}/", self.0.path().display());
        Config::load(sources).map_err(|findings| findings.to_string().replace(&folder, ""))
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn from_environment(environment: &[(&str, &str)]) -> Result<Config, String> {
    Folder::new().findings(Sources {
        environment: owned(environment),
        ..Sources::default()
    })
}

fn from_file(file: &str) -> Result<Config, String> {
    Folder::new().load(file, &[ISSUER])
}

#[test]
fn an_issuer_is_all_that_is_required() {
    let config = from_environment(&[ISSUER]).expect("defaults for the rest");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(
        config.database.url,
        DatabaseUrl::Sqlite("latchkey.db".into())
    );
    assert_eq!(config.secret_key, None);
    assert_eq!(config.default_secret_key_file(), Some("secret.key".into()));
    assert_eq!(config.tokens.code, Duration::from_secs(60));
    assert_eq!(config.session.absolute, Duration::from_secs(14 * 86_400));
    assert_eq!(config.password.minimum_length, 12);
    assert_eq!(
        config.keys.algorithms,
        [SigningAlgorithm::Rs256, SigningAlgorithm::Es256]
    );
    assert!(config.trusted_proxies.is_empty() && !config.development);
}

#[test]
fn a_bad_value_in_the_file_is_named_with_line_key_value_and_what_is_allowed() {
    let issuer = "an https URL, or an http one on loopback, in normal form, without user, query, fragment or trailing slash";
    let listen = "must be an IP address with a port (\"127.0.0.1:8080\", \"[::]:8080\") or \"unix:/absolute/path\"";
    let database = "must be sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE";
    let network = "must be an IP address or an address range such as \"10.0.0.0/8\"";
    let table = [
        ("issuer = 1", format!("1: issuer = 1 must be {issuer}")),
        ("issuer = \"http://id.example.test\"", "1: issuer = \"http://id.example.test\" must use https; http is allowed on localhost, 127.0.0.0/8 and [::1] only".into()),
        ("issuer = \"https://id.example.test/\"", "1: issuer = \"https://id.example.test/\" must not end with a slash".into()),
        ("issuer = \"https://ID.example.test\"", "1: issuer = \"https://ID.example.test\" must be in normal form, which is \"https://id.example.test\"".into()),
        ("issuer = \"https://u:hunter2@id.example.test\"", "1: issuer = \"https://(hidden)@id.example.test\" must not hold a user name or a password".into()),
        ("listen = 8080", format!("1: listen = 8080 {listen}")),
        ("listen = \"localhost:8080\"", format!("1: listen = \"localhost:8080\" {listen}")),
        ("listen = \"unix:latchkey.sock\"", format!("1: listen = \"unix:latchkey.sock\" {listen}")),
        ("secret_key = \"5e5e\"", "1: secret_key = (hidden) must be 64 hexadecimal digits (32 random bytes)".into()),
        ("secret_key = 5", "1: secret_key = (hidden) must be 64 hexadecimal digits (32 random bytes)".into()),
        ("secret_key_file = 5", "1: secret_key_file = (hidden) must be the path of a file".into()),
        ("trusted_proxies = \"10.0.0.0/8\"", "1: trusted_proxies = \"10.0.0.0/8\" must be a list, each an IP address or an address range such as \"10.0.0.0/8\"".into()),
        ("trusted_proxies = [\"10.0.0.0/33\"]", format!("1: trusted_proxies = [\"10.0.0.0/33\"] is wrong at \"10.0.0.0/33\", which {network}")),
        ("trusted_proxies = [\"::/0\"]", "1: trusted_proxies = [\"::/0\"] is wrong at \"::/0\", which must not cover every address: anybody could then forge theirs".into()),
        ("trusted_proxies = [\"10.0.0.1\", \"10.0.0.1/32\"]", "1: trusted_proxies = [\"10.0.0.1\", \"10.0.0.1/32\"] names \"10.0.0.1/32\" twice".into()),
        ("[database]\nurl = \"mysql://u:hunter2@db/x\"", format!("2: database.url = (hidden) {database}")),
        ("database.url = \"sqlite://:memory:\"", "1: database.url = (hidden) must name a file: sqlite://PATH, which holds neither ? nor #, and begins with no colon".into()),
        ("database.url = \"postgres://u:hun@ter2@h/d\"", "1: database.url = (hidden) must be postgres://USER:PASSWORD@HOST/DATABASE, where a character of the user's name or password that means something is percent-encoded: % as %25, @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, a space as %20".into()),
        ("trusted_proxies = [\"10.0.0.0/33\", \"::/0\", \"::1\", \"::1\"]", format!("1: trusted_proxies = [\"10.0.0.0/33\", \"::/0\", \"::1\", \"::1\"] is wrong at \"10.0.0.0/33\", which {network}; is wrong at \"::/0\", which must not cover every address: anybody could then forge theirs; names \"::1\" twice")),
        ("listen = \"0.0.0.0:9464\"", "1: listen = \"0.0.0.0:9464\" must not take what management.listen takes, which is 127.0.0.1:9464".into()),
        ("[management]\nlisten = \"[::]:8080\"", "2: management.listen = \"[::]:8080\" must not take what listen takes, which is 127.0.0.1:8080".into()),
        ("tokens.refresh_idle = \"181d\"", "1: tokens.refresh_idle = \"181d\" must not be longer than tokens.refresh_absolute, which is 180d".into()),
        ("tokens.refresh_absolute = \"29d\"", "1: tokens.refresh_absolute = \"29d\" must not be shorter than tokens.refresh_idle, which is 30d".into()),
        ("egress.ca_file = \"/absent\"", "1: egress.ca_file = \"/absent\" names a file that cannot be read: No such file or directory (os error 2)".into()),
        ("egress.ca_file = \"/dev/null\"", "1: egress.ca_file = \"/dev/null\" names a file that holds no certificate in PEM".into()),
        ("mail.transport = \"smtp\"", "1: mail.transport is not a key; `latchkey config reference` shows all of them".into()),
        ("[management]\nlisten = \"127.0.0.1:8080\"", "2: management.listen = \"127.0.0.1:8080\" must not be the same as listen".into()),
        ("listen = \"127.0.0.1:9464\"", "1: listen = \"127.0.0.1:9464\" must not be the same as management.listen".into()),
        ("log.level = \"loud\"", "1: log.level = \"loud\" must be one of error, warn, info, debug, trace".into()),
        ("log.format = true", "1: log.format = true must be one of auto, pretty, json".into()),
        ("tokens.code = \"2h\"", "1: tokens.code = \"2h\" must be a duration from 10s to 10m".into()),
        ("tokens.code = 601", "1: tokens.code = 601 must be a duration from 10s to 10m".into()),
        ("tokens.code = -1", "1: tokens.code = -1 must be a duration from 10s to 10m".into()),
        ("tokens.access = 1.5", "1: tokens.access = 1.5 must be a duration from 1m to 1d".into()),
        ("tokens.id = \"10 m\"", "1: tokens.id = \"10 m\" must be a duration from 1m to 1d".into()),
        ("tokens = 5", "1: tokens is a section: write [tokens] and its keys below".into()),
        ("[[tokens]]\ncode = 5", "1: tokens is a section: write [tokens] and its keys below".into()),
        ("session.idle = \"15d\"", "1: session.idle = \"15d\" must not be longer than session.absolute, which is 14d".into()),
        ("session.absolute = \"1h\"", "1: session.absolute = \"1h\" must not be shorter than session.idle, which is 12h".into()),
        ("throttle.account_failures = 0", "1: throttle.account_failures = 0 must be a whole number from 1 to 100".into()),
        ("password.minimum_length = 7", "1: password.minimum_length = 7 must be a whole number from 8 to 128".into()),
        ("password.minimum_length = \"12\"", "1: password.minimum_length = \"12\" must be a whole number from 8 to 128".into()),
        ("password.minimum_score = 5", "1: password.minimum_score = 5 must be a whole number from 0 to 4".into()),
        ("password.memory_kib = 99999999999999999999", "1: password.memory_kib = 99999999999999999999 must be a whole number from 7168 to 1048576".into()),
        ("keys.algorithms = []", "1: keys.algorithms = [] must be a list that is not empty, each one of RS256, PS256, ES256, EdDSA".into()),
        ("keys.algorithms = [\"HS256\"]", "1: keys.algorithms = [\"HS256\"] is wrong at \"HS256\", which must be one of RS256, PS256, ES256, EdDSA".into()),
        ("keys.algorithms = [\"ES256\"]", "1: keys.algorithms = [\"ES256\"] must name RS256 too, which OpenID Connect requires (Discovery 3)".into()),
        ("keys.algorithms = [\"ES256\", \"ES256\"]", "1: keys.algorithms = [\"ES256\", \"ES256\"] names \"ES256\" twice".into()),
        ("[keys]\nrotate_every = \"1d\"", "2: keys.rotate_every = \"1d\" must be longer than keys.publish_before, which is 1d".into()),
        ("[keys]\nrotate_every = \"2d\"\npublish_before = \"2d\"", "3: keys.publish_before = \"2d\" must be shorter than keys.rotate_every, which is 2d".into()),
        ("keys.publish_before = \"59m\"", "1: keys.publish_before = \"59m\" must be a duration from 1h to 30d".into()),
        ("[token]\ncode = 60", "2: token.code is not a key; the nearest known one is tokens.code".into()),
        ("isuer = \"x\"", "1: isuer is not a key; the nearest known one is issuer".into()),
        ("minimum_length = 9", "1: minimum_length is not a key; the nearest known one is password.minimum_length".into()),
        ("\"tokens.code\" = 60", "1: \"tokens.code\" is not a key; the nearest known one is tokens.code".into()),
        ("[issue]", "1: issue is not a key; the nearest known one is issuer".into()),
        ("listen = { port = 1 }", format!("1: listen = (a table) {listen}")),
        ("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"", "2: is not TOML: duplicate key".into()),
    ];
    for (file, expected) in &table {
        // The issuer comes from the file where the file sets it.
        let environment: &[_] = if file.starts_with("issuer") {
            &[]
        } else {
            &[ISSUER]
        };
        let findings = Folder::new().load(file, environment).expect_err(file);
        assert_eq!(findings, format!("latchkey.toml:{expected}"), "{file}");
    }
}

#[test]
fn a_bad_variable_is_named_with_what_is_allowed() {
    for (name, value, expected) in [
        (
            "LATCHKEY_TOKENS__CODE",
            "2h",
            "LATCHKEY_TOKENS__CODE: tokens.code = \"2h\" must be a duration from 10s to 10m",
        ),
        (
            "LATCHKEY_LOG__LEVEL",
            "INFO",
            "LATCHKEY_LOG__LEVEL: log.level = \"INFO\" must be one of error, warn, info, debug, trace",
        ),
        (
            "LATCHKEY_PASSWORD__ITERATIONS",
            "two",
            "LATCHKEY_PASSWORD__ITERATIONS: password.iterations = \"two\" must be a whole number from 1 to 20",
        ),
        (
            "LATCHKEY_SECRET_KEY",
            "hunter2",
            "LATCHKEY_SECRET_KEY: secret_key = (hidden) must be 64 hexadecimal digits (32 random bytes)",
        ),
        (
            "LATCHKEY_LISTN",
            "x",
            "LATCHKEY_LISTN: is not a variable of Latchkey; the nearest known one is LATCHKEY_LISTEN",
        ),
        (
            "LATCHKEY_TOKENS_CODE",
            "60s",
            "LATCHKEY_TOKENS_CODE: is not a variable of Latchkey; the nearest known one is LATCHKEY_TOKENS__CODE",
        ),
        (
            "LATCHKEY_LISTEN",
            "\u{fffd}",
            "LATCHKEY_LISTEN: listen must be UTF-8 text",
        ),
    ] {
        assert_eq!(
            from_environment(&[ISSUER, (name, value)]).expect_err(name),
            expected
        );
    }
}

#[test]
fn a_missing_issuer_says_how_to_set_it() {
    assert_eq!(
        from_environment(&[]).expect_err("no issuer"),
        "configuration: issuer is missing and required: an https URL, or an http one on loopback, in normal form, without \
         user, query, fragment or trailing slash; set issuer in the file or LATCHKEY_ISSUER"
    );
}

#[test]
fn postgresql_requires_a_secret_key() {
    let url = (
        "LATCHKEY_DATABASE__URL",
        "postgres://a:hunter2@db.example.test/x",
    );
    assert_eq!(
        from_environment(&[ISSUER, url]).expect_err("no key"),
        "configuration: secret_key is missing, required with PostgreSQL; set secret_key in the file or LATCHKEY_SECRET_KEY, \
         secret_key_file or LATCHKEY_SECRET_KEY_FILE"
    );
    assert!(from_environment(&[ISSUER, url, ("LATCHKEY_SECRET_KEY", SECRET)]).is_ok());
}

#[test]
fn five_mistakes_are_listed_at_once_in_the_order_of_the_file() {
    let file = "listen = 1\nlissten = 2\n[tokens]\ncode = \"1y\"\nid = =\n[password]\nminimum_length = 1\n";
    let findings = from_file(file).expect_err("five mistakes");
    let places: Vec<_> = findings
        .lines()
        .map(|line| line.split(' ').next().unwrap_or_default())
        .collect();
    assert_eq!(
        places,
        [
            "latchkey.toml:1:",
            "latchkey.toml:2:",
            "latchkey.toml:4:",
            "latchkey.toml:5:",
            "latchkey.toml:7:"
        ]
    );
}

#[test]
fn a_file_that_is_absent_or_not_utf8_is_a_finding() {
    let folder = Folder::new();
    let absent = Some(folder.0.path().join("latchkey.toml"));
    let findings = folder
        .findings(Sources {
            file: absent,
            ..Sources::default()
        })
        .expect_err("no file");
    assert_eq!(
        findings,
        "latchkey.toml: cannot be read: No such file or directory (os error 2)"
    );
    let file = Some(folder.write("latchkey.toml", b"# one\nissuer = \"\xff\"\n", 0o600));
    let findings = folder
        .findings(Sources {
            file,
            ..Sources::default()
        })
        .expect_err("not UTF-8");
    assert_eq!(findings, "latchkey.toml:2: is not UTF-8 text");
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let folder = Folder::new();
    let code = |file: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]| {
        let file = Some(folder.write("latchkey.toml", file, 0o600));
        let environment = [&[ISSUER], environment].concat();
        let sources = Sources {
            file,
            environment: owned(&environment),
            overrides: owned(overrides),
        };
        Config::load(sources).expect("valid").tokens.code.as_secs()
    };
    let (file, variable, flag) = (
        "tokens.code = 11",
        ("LATCHKEY_TOKENS__CODE", "12"),
        ("tokens.code", "13s"),
    );
    assert_eq!(code("", &[], &[]), 60);
    assert_eq!(code(file, &[], &[]), 11);
    assert_eq!(code(file, &[variable], &[]), 12);
    assert_eq!(code(file, &[variable], &[flag]), 13);
}

#[test]
fn a_bad_flag_is_placed_on_the_command_line() {
    let sources = Sources {
        environment: owned(&[ISSUER]),
        overrides: owned(&[("listen", "x")]),
        ..Sources::default()
    };
    let findings = Folder::new().findings(sources).expect_err("no address");
    assert!(
        findings.starts_with("command line: listen = \"x\" must be "),
        "{findings}"
    );
}

#[test]
fn lists_and_numbers_can_be_written_in_variables() {
    let config = from_environment(&[
        ISSUER,
        ("LATCHKEY_TRUSTED_PROXIES", "10.1.2.3/8, ::1"),
        ("LATCHKEY_KEYS__ALGORITHMS", "EdDSA, RS256"),
        ("LATCHKEY_PASSWORD__MINIMUM_LENGTH", "15"),
    ])
    .expect("valid");
    assert_eq!(
        config
            .trusted_proxies
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["10.0.0.0/8", "::1/128"]
    );
    assert_eq!(
        config.keys.algorithms,
        [SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256]
    );
    assert_eq!(config.password.minimum_length, 15);
    let none =
        from_environment(&[ISSUER, ("LATCHKEY_TRUSTED_PROXIES", "")]).expect("an empty list");
    assert!(none.trusted_proxies.is_empty());
}

#[test]
fn a_secret_can_come_from_a_file() {
    let folder = Folder::new();
    let key = folder.write("secret.key", format!("{SECRET}\n"), 0o600);
    let url = folder.write("url", "postgres://a:hunter2@db.example.test/x\r\n", 0o640);
    let (key, url) = (key.to_string_lossy(), url.to_string_lossy());
    let file = format!("secret_key_file = {key:?}");
    let config = folder
        .load(&file, &[ISSUER, ("LATCHKEY_DATABASE__URL_FILE", &url)])
        .expect("valid");
    assert_eq!(
        config.secret_key.as_ref().map(SecretKey::hexadecimal),
        Some(SECRET)
    );
    assert_eq!(
        config.database.url,
        DatabaseUrl::Postgres("postgres://a:hunter2@db.example.test/x".into())
    );
    // A variable beats the file, whichever of both forms they use.
    let config = folder
        .load(&file, &[ISSUER, ("LATCHKEY_SECRET_KEY", OTHER_SECRET)])
        .expect("valid");
    assert_eq!(
        config.secret_key.as_ref().map(SecretKey::hexadecimal),
        Some(OTHER_SECRET)
    );
}

#[test]
fn a_secret_file_that_others_may_read_or_that_holds_no_secret_is_refused() {
    let folder = Folder::new();
    let refusal = |content: &[u8], mode| {
        let _ = fs::remove_file(folder.0.path().join("secret.key"));
        let path = folder.write("secret.key", content, mode);
        let findings = folder
            .load(
                "",
                &[
                    ISSUER,
                    ("LATCHKEY_SECRET_KEY_FILE", &path.to_string_lossy()),
                ],
            )
            .expect_err("refused");
        findings
            .trim_start_matches("LATCHKEY_SECRET_KEY_FILE: secret_key_file = \"secret.key\" ")
            .to_owned()
    };
    for mode in [0o644, 0o604, 0o660, 0o666] {
        let expected =
            format!("names a file with mode {mode:04o}; allowed is 0600, or 0640 at most");
        assert_eq!(refusal(SECRET.as_bytes(), mode), expected);
    }
    assert_eq!(
        refusal(b"hunter2", 0o600),
        "names a file whose content must be 64 hexadecimal digits (32 random bytes)"
    );
    assert_eq!(
        refusal(b"", 0o600),
        "names a file whose content must be 64 hexadecimal digits (32 random bytes)"
    );
    assert_eq!(
        refusal(b"hunter2\xff", 0o600),
        "names a file that is not UTF-8 text"
    );
    let folder = folder.0.path().to_string_lossy().into_owned();
    let absent = format!("{folder}/absent");
    for (path, problem) in [
        (&absent, "cannot be read: No such file"),
        (&folder, "must name a regular file"),
    ] {
        let findings =
            from_environment(&[ISSUER, ("LATCHKEY_SECRET_KEY_FILE", path)]).expect_err("refused");
        assert!(findings.contains(problem), "{findings}");
    }
}

#[test]
fn a_secret_given_twice_in_one_place_is_refused_and_what_is_wrong_with_either_is_told_too() {
    let findings =
        from_file("secret_key = \"5e\"\nsecret_key_file = \"./absent\"").expect_err("two");
    assert_eq!(
        findings.lines().collect::<Vec<_>>(),
        [
            "latchkey.toml:1: secret_key = (hidden) must be 64 hexadecimal digits (32 random bytes)",
            "latchkey.toml:2: secret_key_file = \"./absent\" must not be set beside secret_key: one of them, not both",
            "latchkey.toml:2: secret_key_file = \"./absent\" names a file that cannot be read: No such file or directory (os error 2)",
        ]
    );
}

#[test]
fn one_bad_key_of_a_section_hides_nothing_of_what_the_others_do_together() {
    let file = "[session]\nidle = \"100d\"\nremembered = \"x\"\n[keys]\nalgorithms = [\"ES256\"]\nrotate_every = \"x\"\n";
    let findings = from_file(file).expect_err("four mistakes");
    let keys: Vec<_> = findings
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(
        keys,
        [
            "session.idle",
            "session.remembered",
            "keys.algorithms",
            "keys.rotate_every"
        ]
    );
}

#[test]
fn a_secret_is_in_no_finding() {
    let broken = [
        "secret_key = hunter2",
        "secret_key = \"hunter2",
        "secret_key = hunter2 hunter2 = \"hunter2\"",
        "secret_key = [\"hunter2\"]",
        "secret_key = { hunter = \"hunter2\" }",
        "secret_kye = \"hunter2\"",
        "secret_key = \"\"\"hunter2\\x\"\"\"",
        "secret_key = \"hunter2\"\nsecret_key = \"hunter2\"",
        "[database]\nurl = \"mysql://a:hunter2@b/c\"",
        "[database]\nurl = postgres://a:hunter2@b/c",
        "[database]\npassword = \"hunter2\"",
        "listen = \"postgres://a:hunter2@b/c\"",
        "listen = [\"postgres://a:hunt@hunter2@b/c\"]",
    ];
    for file in broken {
        let folder = Folder::new();
        let path = folder.write("latchkey.toml", file, 0o600);
        let sources = Sources {
            file: Some(path),
            environment: owned(&[ISSUER]),
            ..Sources::default()
        };
        let findings = Config::load(sources).expect_err(file);
        let json: String = findings
            .iter()
            .map(|finding| serde_json::to_string(finding).expect("plain data"))
            .collect();
        let all = format!("{findings} {findings:?} {json}");
        assert!(!all.contains("hunter2"), "{file}: {all}");
    }
}

#[test]
fn a_secret_put_where_its_file_belongs_is_not_shown() {
    let findings =
        from_environment(&[ISSUER, ("LATCHKEY_SECRET_KEY_FILE", SECRET)]).expect_err("no path");
    let expected = "LATCHKEY_SECRET_KEY_FILE: secret_key_file = (hidden) must be the path of a file, not the secret itself";
    assert_eq!(findings, expected);
    for (name, secret) in [
        ("SECRET_KEY_FILE", &*"5e".repeat(31)),
        (
            "SECRET_KEY_FILE",
            "Uc4+9/zoOOKeeoOlTEXb2R5TJGp2cXfZ/yWMdKbIzEk=",
        ),
        ("SECRET_KEY_FILE", "hunter2"),
        ("DATABASE__URL_FILE", "postgres://u:hunter2/x@h"),
        ("DATABASE__URL_FILE", "mysql://u:hunter2@h/x"),
    ] {
        let variable = format!("LATCHKEY_{name}");
        let sources = Sources {
            environment: owned(&[ISSUER, (&variable, secret)]),
            ..Sources::default()
        };
        let shown: Vec<_> = shown(&sources).into_iter().map(|key| key.source).collect();
        let findings = Config::load(sources).expect_err("no path").to_string();
        assert!(
            findings.contains("= (hidden) must be the path"),
            "{findings}"
        );
        assert!(!shown.concat().contains(secret), "{shown:?}");
    }
    let path = "/run/secrets/latchkey_secret_key";
    let findings =
        from_environment(&[ISSUER, ("LATCHKEY_SECRET_KEY_FILE", path)]).expect_err("none");
    assert!(findings.contains(path), "{findings}");
}

#[test]
fn neither_sources_nor_config_print_a_secret() {
    let sources = Sources {
        environment: owned(&[
            ISSUER,
            ("LATCHKEY_SECRET_KEY", SECRET),
            ("LATCHKEY_DATABASE__URL", "postgres://a:hunter2@b/c"),
        ]),
        ..Sources::default()
    };
    let config = Config::load(sources.clone()).expect("valid");
    for debug in [format!("{config:?}"), format!("{sources:?}")] {
        assert!(
            !debug.contains(SECRET) && !debug.contains("hunter2"),
            "{debug}"
        );
    }
}

#[test]
fn variables_that_kubernetes_adds_are_no_mistakes() {
    let links = [
        ("LATCHKEY_SERVICE_HOST", "10.0.0.1"),
        ("LATCHKEY_SERVICE_PORT", "80"),
        ("LATCHKEY_SERVICE_PORT_HTTP", "80"),
        ("LATCHKEY_PORT", "tcp://10.0.0.1:80"),
        ("LATCHKEY_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("LATCHKEY_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("LATCHKEY_DB_PORT_5432_TCP_PROTO", "tcp"),
        ("LATCHKEY_CONFIG", "latchkey.toml"),
        ("PATH", "/bin"),
    ];
    assert!(from_environment(&[&[ISSUER], &links[..]].concat()).is_ok());
    for (name, value) in [
        ("LATCHKEY_PORT_HTTP", "80"),
        ("LATCHKEY_PORT", "9090"),
        ("LATCHKEY_LISTEN_PORT", "9090"),
        ("LATCHKEY_SERVICE_HOST", "id.example.test"),
        ("LATCHKEY_SERVICE_PORT", "http"),
        ("LATCHKEY_PORT_80_TCP_ADDR", "here"),
    ] {
        assert!(
            from_environment(&[ISSUER, (name, value)]).is_err(),
            "{name}"
        );
    }
}

#[test]
fn each_key_has_a_name_of_its_own_and_a_reason() {
    let names: Vec<_> = KEYS.iter().flat_map(Key::names).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(
        KEYS.len() <= 60,
        "operators must be able to read all of them"
    );
    for key in KEYS.iter() {
        assert!(
            key.reason.iter().all(|line| !line.trim().is_empty()),
            "{}",
            key.name
        );
        let variable = variable_name(key.name);
        assert!(
            !variable.ends_with("_PORT")
                && !variable.contains("_PORT_")
                && variable != "LATCHKEY_CONFIG",
            "{variable}"
        );
    }
}

#[test]
fn the_reference_uncommented_sets_every_key_to_its_default() {
    let reference = reference();
    let uncommented: Vec<_> = reference
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.is_empty() && !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .collect();
    let config = Folder::new()
        .load(&uncommented.join("\n"), &[])
        .expect("valid");
    let defaults = from_environment(&[ISSUER]).expect("valid");
    assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
    for key in KEYS.iter() {
        let name = key.name.rsplit('.').next().unwrap_or_default();
        let assignment = format!("{name} = ");
        let set = uncommented.iter().any(|line| line.starts_with(&assignment));
        assert!(
            set || matches!(key.presence, Presence::Optional(_)),
            "{}",
            key.name
        );
        assert!(
            reference.contains(&format!("# Variable: {}", variable_name(key.name))),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_reference_as_it_is_sets_nothing() {
    let config = Folder::new().load(&reference(), &[ISSUER]).expect("valid");
    assert_eq!(
        format!("{config:?}"),
        format!("{:?}", from_environment(&[ISSUER]).expect("valid"))
    );
}
