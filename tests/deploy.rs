//! What lies in deploy/ works: nginx and systemd look at theirs, and the rest names only what exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use latchkey::config;
use latchkey::store::audit_events;
use latchkey::web::routes::TABLE;
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};
use reqwest::blocking::Client;
use tempfile::TempDir;

use crate::support::op::{Database, EMAIL, Op, free_port};
use crate::support::wait::eventually;

fn deploy(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// In CI what is needed is installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/sbin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed");
        eprintln!("left out: {name} is not installed");
    }
    found
}

/// The text with each of these replaced, all of which must be there.
fn with(mut text: String, replaced: &[(&str, &str)]) -> String {
    for (old, new) in replaced {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    text
}

#[test]
fn the_example_configuration_is_the_reference() {
    assert_eq!(deploy("latchkey.toml"), config::reference());
}

#[test]
fn every_variable_is_one_that_latchkey_knows_and_every_probe_asks_a_path_that_it_has() {
    let known = config::reference();
    let known: BTreeSet<&str> = known
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("LATCHKEY_"))
        .collect();
    for name in ["Containerfile", "compose.yaml", "kubernetes.yaml"] {
        let text = deploy(name);
        let named: BTreeSet<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("LATCHKEY_"))
            .collect();
        assert!(
            !named.is_empty() && named.is_subset(&known),
            "{name}: {named:?}"
        );
    }
    let paths: BTreeSet<&str> = TABLE.iter().map(|route| route.path).collect();
    for (name, before) in [("kubernetes.yaml", "path: "), ("Caddyfile", "health_uri ")] {
        let text = deploy(name);
        let asked = text.split(before).skip(1);
        let asked: Vec<_> = asked
            .map(|rest| rest.split([',', '\n', ' ']).next().unwrap())
            .collect();
        assert!(
            !asked.is_empty() && asked.iter().all(|path| paths.contains(path)),
            "{name}: {asked:?}"
        );
    }
}

#[test]
fn containers_run_without_rights_and_write_nowhere_but_to_their_volume() {
    let kubernetes = deploy("kubernetes.yaml");
    for line in [
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "capabilities: { drop: [ALL] }",
        "seccompProfile: { type: RuntimeDefault }",
        "livenessProbe:",
        "readinessProbe:",
    ] {
        assert!(kubernetes.contains(line), "{line}");
    }
    let compose = deploy("compose.yaml");
    for line in [
        "read_only: true",
        "cap_drop: [ALL]",
        "no-new-privileges:true",
        "condition: service_healthy",
    ] {
        assert!(compose.contains(line), "{line}");
    }
    let container = deploy("Containerfile");
    assert!(container.contains("\nUSER 65532:65532\n") && container.contains("HEALTHCHECK"));
    for text in [kubernetes, compose, container] {
        assert!(!text.contains(":latest"), "every image is pinned");
    }
}

#[test]
fn systemd_takes_the_unit_and_finds_it_well_locked_up() {
    let Some(analyze) = tool("systemd-analyze") else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let unit = folder.path().join("latchkey.service");
    let text = with(
        deploy("latchkey.service"),
        &[("/usr/local/bin/latchkey", env!("CARGO_BIN_EXE_latchkey"))],
    );
    fs::write(&unit, text).unwrap();
    let run = |arguments: &[&str]| {
        let done = Command::new(&analyze)
            .args(arguments)
            .arg(&unit)
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (good, said) = run(&["verify", "--man=no"]);
    assert!(good && !said.contains("latchkey.service"), "{said}");
    // Of ten; a unit without any of it has 9.6.
    let (good, said) = run(&["security", "--offline=yes", "--no-pager", "--threshold=15"]);
    assert!(good, "{said}");
}

/// A proxy on ports of the test's own.
pub struct Nginx {
    process: Child,
    folder: TempDir,
}

impl Nginx {
    pub fn start(binary: &Path, tls: u16, plain: u16, latchkey: u16) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (certificate, key) = self_signed();
        fs::write(path("certificate.pem"), certificate).unwrap();
        fs::write(path("key.pem"), key).unwrap();
        let site = with(
            deploy("nginx.conf"),
            &[
                (
                    "/etc/ssl/id.example.com.pem",
                    path("certificate.pem").to_str().unwrap(),
                ),
                (
                    "/etc/ssl/id.example.com.key",
                    path("key.pem").to_str().unwrap(),
                ),
                (
                    "https://id.example.com",
                    &format!("https://localhost:{tls}"),
                ),
                ("id.example.com", "localhost"),
                ("listen 80;", &format!("listen 127.0.0.1:{plain};")),
                ("listen 443 ssl", &format!("listen 127.0.0.1:{tls} ssl")),
                ("127.0.0.1:8080", &format!("127.0.0.1:{latchkey}")),
            ],
        );
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let kept = kinds.map(|kind| format!("{kind}_temp_path {};", path(kind).display()));
        let whole = format!(
            "daemon off; worker_processes 1; pid {}; error_log stderr;\nevents {{}}\nhttp {{ {}\n{site}\n}}\n",
            path("pid").display(),
            kept.join(" "),
        );
        fs::write(path("nginx.conf"), whole).unwrap();
        let process = Command::new(binary)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(path("nginx.conf"))
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    /// What whoever is to believe it has to know.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, which its workers follow; they would outlive a SIGKILL.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ended_before = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _status = self.process.wait();
    }
}

fn self_signed() -> (Vec<u8>, Vec<u8>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "localhost").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    certificate
        .set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    let certificate = certificate.build().to_pem().unwrap();
    (certificate, key.private_key_to_pem_pkcs8().unwrap())
}

#[test]
fn f4_behind_nginx_people_sign_in_over_tls_and_nobody_chooses_their_address() {
    let Some(nginx) = tool("nginx") else { return };
    let (tls, plain) = (free_port(), free_port());
    let issuer = format!("https://localhost:{tls}");
    let op = Op::start(
        Database::Sqlite,
        &[
            ("issuer", issuer.as_str()),
            ("trusted_proxies", "127.0.0.1/32"),
        ],
    );
    let port = op.config.listen.to_string();
    let port = port.rsplit(':').next().unwrap().parse().unwrap();
    let _nginx = Nginx::start(&nginx, tls, plain, port);
    let http = Client::builder()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .cookie_store(true)
        .build()
        .unwrap();
    let get = |url: String| {
        http.get(url)
            .header("x-forwarded-for", "198.51.100.7")
            .send()
    };
    let page = eventually("nginx answers", || get(format!("{issuer}/login")).ok());
    assert_eq!(page.status(), 200);
    let cookie = page.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.starts_with("__Host-") && cookie.contains("; Secure"),
        "{cookie}"
    );
    assert!(page.headers().contains_key("strict-transport-security"));
    let csrf = page.text().unwrap();
    let csrf = csrf
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let form = [
        ("csrf", csrf.as_str()),
        ("login", EMAIL),
        ("password", "not-the-password-of-anybody"),
    ];
    let refused = http
        .post(format!("{issuer}/login"))
        .header("origin", &issuer)
        .header("x-forwarded-for", "198.51.100.7")
        .header("forwarded", "for=198.51.100.7")
        .form(&form)
        .send()
        .unwrap();
    assert_eq!(refused.status(), 400);
    let events = op
        .store
        .read_blocking(|conn| audit_events::list(conn, None, 100))
        .unwrap();
    let failed = events
        .iter()
        .find(|event| event.event == "login.failed")
        .unwrap();
    assert_eq!(
        failed.address.as_deref(),
        Some("127.0.0.1"),
        "nginx saw who it was"
    );
    let document = get(format!("{issuer}/.well-known/openid-configuration"))
        .unwrap()
        .text()
        .unwrap();
    assert!(
        document.contains(&format!("\"issuer\":\"{issuer}\"")),
        "{document}"
    );
    let sent = get(format!("http://127.0.0.1:{plain}/login")).unwrap();
    assert_eq!(
        (
            sent.status().as_u16(),
            sent.headers()["location"].to_str().unwrap()
        ),
        (308, format!("{issuer}/login").as_str())
    );
}
