//! A real browser: headless Chromium, driven by the `WebDriver` protocol (W3C `WebDriver`; Debian's `chromium-driver`).

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::{ParseError, Url};

/// How long a page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One browser with a profile of its own. What can't be done fails the test.
pub struct Chromium {
    runtime: Runtime,
    // Gone once the session is closed.
    client: Option<Client>,
    _profile: TempDir,
}

/// Whether pages may run scripts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scripts {
    On,
    Off,
}

impl Chromium {
    /// A fresh browser, or `None` where Chromium is not installed.
    pub fn start(scripts: Scripts) -> Option<Self> {
        let driver = driver()?;
        let profile = TempDir::new_in(&driver.directory).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--accept-lang=en",
            "--window-size=900,800", format!("--user-data-dir={}", profile.path().display()),
        ]});
        if scripts == Scripts::Off {
            options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
        }
        let capabilities =
            json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let client = runtime
            .block_on(
                ClientBuilder::native()
                    .capabilities(capabilities.as_object().unwrap().clone())
                    .connect(&driver.url),
            )
            .unwrap_or_else(|error| panic!("Chromium does not start: {error}"));
        Some(Self {
            runtime,
            client: Some(client),
            _profile: profile,
        })
    }

    pub fn open(&self, url: &str) {
        self.run(|client| async move { client.goto(url).await });
    }

    pub fn back(&self) {
        self.run(|client| async move { client.back().await });
    }

    pub fn reload(&self) {
        self.run(|client| async move { client.refresh().await });
    }

    pub fn url(&self) -> Url {
        self.run(|client| async move { client.current_url().await })
    }

    /// Opens another tab, shows it, and answers its name.
    pub fn new_tab(&self) -> String {
        let opened = self.run(|client| async move { client.new_window(true).await });
        let tab = String::from(opened.handle);
        self.show_tab(&tab);
        tab
    }

    pub fn tab(&self) -> String {
        String::from(self.run(|client| async move { client.window().await }))
    }

    pub fn show_tab(&self, tab: &str) {
        let tab = tab.try_into().unwrap();
        self.run(|client| async move { client.switch_to_window(tab).await });
    }

    /// Waits until the page has the element.
    pub fn wait_for(&self, selector: &str) {
        self.find(selector);
    }

    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.run(|_client| async move { element.click().await });
    }

    /// Types at the end of what a field holds.
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.run(|_client| async move { element.send_keys(text).await });
    }

    /// Types in place of what a field holds, be it only what the browser kept from an earlier visit.
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.run(|_client| async move {
            element.clear().await?;
            element.send_keys(text).await
        });
    }

    /// Presses a key, wherever the focus is.
    pub fn press(&self, key: Key) {
        self.type_keys(&char::from(key).to_string());
    }

    pub fn type_keys(&self, text: &str) {
        self.run(|client| async move { client.active_element().await?.send_keys(text).await });
    }

    /// The visible text.
    pub fn text(&self, selector: &str) -> String {
        let element = self.find(selector);
        self.run(|_client| async move { element.text().await })
    }

    /// What a field holds now, or any other property.
    pub fn property(&self, selector: &str, name: &str) -> Option<String> {
        let element = self.find(selector);
        self.run(|_client| async move { element.prop(name).await })
    }

    pub fn attribute(&self, selector: &str, name: &str) -> Option<String> {
        let element = self.find(selector);
        self.run(|_client| async move { element.attr(name).await })
    }

    /// A property as the browser computed it.
    pub fn style(&self, selector: &str, name: &str) -> String {
        let element = self.find(selector);
        self.run(|_client| async move { element.css_value(name).await })
    }

    /// The `id` or else the `name` of the element that has the focus.
    pub fn focused(&self) -> String {
        self.run(|client| async move {
            let element = client.active_element().await?;
            let id = element.attr("id").await?;
            Ok(id.or(element.attr("name").await?).unwrap_or_default())
        })
    }

    /// Runs a script in the page, past its own policy, and answers what it returns.
    pub fn script(&self, script: &str) -> Value {
        self.run(|client| async move { client.execute(script, Vec::new()).await })
    }

    /// What the console said since the last look.
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("se/log", json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|entry| {
                entry["message"]
                    .as_str()
                    .map_or_else(|| entry.to_string(), str::to_owned)
            })
            .collect()
    }

    /// Lights or darkens the person's system: `light` or `dark`.
    pub fn prefer_colors(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Makes the window as large as a phone, or as a desk.
    pub fn resize(&self, width: u32, height: u32, pixels: u32) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": pixels, "mobile": false }),
        );
    }

    /// A PNG of what is visible.
    pub fn picture(&self) -> Vec<u8> {
        self.run(|client| async move { client.screenshot().await })
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command(
            "goog/cdp/execute",
            json!({ "cmd": command, "params": parameters }),
        )
    }

    fn command(&self, path: &'static str, body: Value) -> Value {
        let command = ChromiumCommand {
            path,
            body: body.to_string(),
        };
        self.run(|client| async move { client.issue_cmd(command).await })
    }

    fn find(&self, selector: &str) -> Element {
        let client = self.client.as_ref().expect("the session is open");
        let found = self.runtime.block_on(
            client
                .wait()
                .at_most(PATIENCE)
                .every(Duration::from_millis(50))
                .for_element(Locator::Css(selector)),
        );
        found.unwrap_or_else(|error| {
            let source = self.run(|client| async move { client.source().await });
            panic!("no {selector} at {}: {error}\n{source}", self.url())
        })
    }

    fn run<'a, T, F: Future<Output = Result<T, CmdError>>>(
        &'a self,
        action: impl FnOnce(&'a Client) -> F,
    ) -> T {
        let client = self.client.as_ref().expect("the session is open");
        self.runtime
            .block_on(action(client))
            .unwrap_or_else(|error| panic!("Chromium: {error}"))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _already_gone = self.runtime.block_on(client.close());
        }
    }
}

/// A command of Chromium's own, which the standard does not have.
#[derive(Debug)]
struct ChromiumCommand {
    path: &'static str,
    body: String,
}

impl WebDriverCompatibleCommand for ChromiumCommand {
    fn endpoint(&self, base: &Url, session_id: Option<&str>) -> Result<Url, ParseError> {
        let session = session_id.unwrap_or_default();
        base.join(&format!("session/{session}/{}", self.path))
    }

    fn method_and_body(&self, _url: &Url) -> (reqwest::Method, Option<String>) {
        (reqwest::Method::POST, Some(self.body.clone()))
    }
}

/// A running chromedriver.
struct Driver {
    url: String,
    directory: PathBuf,
    // The watchdog's standard input: when this process ends, however it ends, the pipe closes and every browser with it.
    _watchdog: Child,
    _output: BufReader<ChildStdout>,
}

/// The driver of this test process, or `None` (and a line on standard error) where it is not installed.
fn driver() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    DRIVER
        .get_or_init(|| match start_driver() {
            Ok(driver) => Some(driver),
            // In CI a missing browser would go unnoticed for ever.
            Err(reason) if env::var_os("CI").is_some() => panic!("no Chromium: {reason}"),
            Err(reason) => {
                eprintln!("tests in Chromium are left out: {reason}");
                None
            }
        })
        .as_ref()
}

fn start_driver() -> Result<Driver, String> {
    let program = find("chromedriver").ok_or("chromedriver was not found")?;
    find("chromium")
        .or_else(|| find("google-chrome"))
        .ok_or("chromium was not found")?;
    let directory = env::temp_dir().join(format!("latchkey-chromium-{}", std::process::id()));
    // One left behind by a killed process with the same number.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;

    // The shell waits until its input closes, and then kills the driver and its browsers, which are in one process group.
    let script = r#"
        setsid "$1" --port=0 </dev/null 2>"$2/log" &
        cat >/dev/null
        kill -s KILL -- -$!
        wait
        rm -rf "$2" 2>/dev/null || rm -rf "$2"
    "#;
    let mut watchdog = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&program)
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("sh did not start: {error}"))?;
    let mut output = BufReader::new(watchdog.stdout.take().ok_or("sh has no output")?);
    let port = announced_port(&mut output)?;
    Ok(Driver {
        url: format!("http://127.0.0.1:{port}"),
        directory,
        _watchdog: watchdog,
        _output: output,
    })
}

/// The driver chooses a free port and says so: `ChromeDriver was started successfully on port 41234.`
fn announced_port(output: &mut impl BufRead) -> Result<u16, String> {
    let until = Instant::now() + PATIENCE;
    let mut said = String::new();
    while Instant::now() < until {
        let mut line = String::new();
        let length = output.read_line(&mut line).map_err(|e| e.to_string())?;
        let port = line
            .split_once("successfully on port ")
            .and_then(|(_, port)| port.trim().trim_end_matches('.').parse().ok());
        if let Some(port) = port {
            return Ok(port);
        }
        if length == 0 {
            break;
        }
        said.push_str(&line);
    }
    Err(format!("chromedriver did not start: {}", said.trim()))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
