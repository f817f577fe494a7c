//! The example proxies of deploy/ in front of a server: with a certificate and ports of the test's own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};
use tempfile::TempDir;

use super::op::free_port;

/// What goes to standard error.
const ERRORS: &str = "errors.log";

/// One that runs; it ends with the test.
pub struct ReverseProxy {
    /// What people open.
    pub issuer: String,
    /// Where nginx speaks without TLS.
    pub plain: u16,
    /// Where nginx speaks TLS over IPv6.
    pub over_ipv6: u16,
    process: Child,
    folder: TempDir,
}

/// Ports and a certificate for one that does not run yet.
pub struct Prepared {
    pub issuer: String,
    binary: PathBuf,
    tls: u16,
    folder: TempDir,
}

/// With the binary of either, if it is installed; in CI it must be.
pub fn prepare(name: &str) -> Option<Prepared> {
    let binary = tool(name)?;
    let folder = TempDir::new().unwrap();
    let (certificate, key) = self_signed();
    fs::write(folder.path().join("certificate.pem"), certificate).unwrap();
    fs::write(folder.path().join("key.pem"), key).unwrap();
    let tls = free_port();
    Some(Prepared {
        issuer: format!("https://localhost:{tls}"),
        binary,
        tls,
        folder,
    })
}

impl Prepared {
    /// Starts it in front of the server at this port.
    pub fn start(self, latchkey: u16) -> ReverseProxy {
        if self.binary.ends_with("caddy") {
            self.caddy(latchkey)
        } else {
            self.nginx(latchkey)
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn nginx(self, latchkey: u16) -> ReverseProxy {
        // Of IPv6 at a port of its own: whoever asks localhost comes over IPv4.
        let (plain, over_ipv6) = (free_port(), free_port());
        let tls = self.tls;
        let site = with(
            deploy("nginx.conf"),
            &[
                ("/etc/ssl/id.example.com.pem", &self.path("certificate.pem")),
                ("/etc/ssl/id.example.com.key", &self.path("key.pem")),
                ("https://id.example.com", &self.issuer),
                ("id.example.com", "localhost"),
                ("listen 80;", &format!("listen 127.0.0.1:{plain};")),
                ("listen [::]:80;", ""),
                ("listen 443 ssl", &format!("listen 127.0.0.1:{tls} ssl")),
                (
                    "listen [::]:443 ssl",
                    &format!("listen [::1]:{over_ipv6} ssl"),
                ),
                ("/var/log/nginx", &self.path("")),
                ("127.0.0.1:8080", &format!("127.0.0.1:{latchkey}")),
            ],
        );
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let kept = kinds.map(|kind| format!("{kind}_temp_path {};", self.path(kind)));
        let whole = format!(
            "daemon off; worker_processes 1; pid {}; error_log stderr;\nevents {{}}\nhttp {{ {}\n{site}\n}}\n",
            self.path("pid"),
            kept.join(" "),
        );
        fs::write(self.path("nginx.conf"), whole).unwrap();
        let mut command = Command::new(&self.binary);
        command.arg("-p").arg(self.folder.path());
        command.args(["-c", &self.path("nginx.conf")]);
        self.run(command, (plain, over_ipv6))
    }

    fn caddy(self, latchkey: u16) -> ReverseProxy {
        // Nobody outside gives this machine a certificate, and ports below 1024 are not the test's.
        let own = format!(
            "\n{} {{\n\tbind 127.0.0.1\n\ttls {} {}\n",
            self.issuer,
            self.path("certificate.pem"),
            self.path("key.pem"),
        );
        let whole = "\n{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n";
        let site = with(
            deploy("Caddyfile"),
            &[
                ("\n{\n", whole),
                ("\nid.example.com {\n", &own),
                ("127.0.0.1:8080", &format!("127.0.0.1:{latchkey}")),
            ],
        );
        fs::write(self.path("Caddyfile"), site).unwrap();
        let mut command = Command::new(&self.binary);
        command.args(["run", "--config", &self.path("Caddyfile")]);
        self.run(command, (0, 0))
    }

    fn run(self, mut command: Command, (plain, over_ipv6): (u16, u16)) -> ReverseProxy {
        let errors = fs::File::create(self.path(ERRORS)).unwrap();
        let process = command
            .env("HOME", self.folder.path())
            .stderr(errors)
            .spawn()
            .unwrap();
        ReverseProxy {
            issuer: self.issuer,
            plain,
            over_ipv6,
            process,
            folder: self.folder,
        }
    }
}

impl ReverseProxy {
    /// What whoever is to believe it has to know.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Whether it can be reached by now.
    pub fn is_open(&self) -> bool {
        let port = self.issuer.rsplit(':').next().unwrap();
        TcpStream::connect(format!("127.0.0.1:{port}")).is_ok()
    }

    /// Everything that it wrote down so far.
    pub fn log(&self) -> String {
        let texts = [ERRORS, "latchkey.log"].map(|name| fs::read(self.folder.path().join(name)));
        let texts =
            texts.map(|text| String::from_utf8_lossy(&text.unwrap_or_default()).into_owned());
        texts.concat()
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        // SIGTERM, which its workers follow; they would outlive a SIGKILL.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ended_before = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _status = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A file of deploy/.
pub fn deploy(name: &str) -> String {
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
pub fn with(mut text: String, replaced: &[(&str, &str)]) -> String {
    for (old, new) in replaced {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    text
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
