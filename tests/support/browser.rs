//! A person's browser without scripts: cookies, redirects inside the issuer, forms. It stops where the client begins.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::HeaderMap;
use scraper::{Html, Selector};
use url::Url;

use super::op::{EMAIL, PASSWORD};

#[derive(Clone)]
pub struct Browser {
    http: Client,
    issuer: String,
    pub cookies: BTreeMap<String, String>,
    /// The `Set-Cookie` lines of the last answers, as they came.
    pub set_cookies: Vec<String>,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
}

/// An answer that a person would see, or the redirect to a client.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: u16,
    pub url: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Browser {
    pub fn new(issuer: &str) -> Self {
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(90))
            .build()
            .unwrap();
        Self {
            http,
            issuer: issuer.to_owned(),
            cookies: BTreeMap::new(),
            set_cookies: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// The same, which believes any certificate.
    pub fn gullible(issuer: &str) -> Self {
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        Self {
            http,
            ..Self::new(issuer)
        }
    }

    /// The same, by way of a proxy that reaches the server through a Unix socket.
    pub fn behind_socket(issuer: &str, socket: &Path) -> Self {
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .unix_socket(socket)
            .build()
            .unwrap();
        Self {
            http,
            ..Self::new(issuer)
        }
    }

    /// Opens an address and follows it inside the issuer.
    pub fn get(&mut self, url: &str) -> Page {
        let page = self.get_once(url);
        self.follow(page)
    }

    /// Opens an address and follows nothing.
    pub fn get_once(&mut self, url: &str) -> Page {
        let url = self.absolute(url);
        self.send(self.http.get(&url), &url)
    }

    /// Posts a form and follows inside the issuer.
    pub fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.post_once(url, fields);
        self.follow(page)
    }

    pub fn post_once(&mut self, url: &str, fields: &[(&str, &str)]) -> Page {
        let url = self.absolute(url);
        self.send(self.http.post(&url).form(fields), &url)
    }

    /// Fills in the page's first form and sends it, as the button in `fields` would.
    pub fn submit(&mut self, page: &Page, fields: &[(&str, &str)]) -> Page {
        let (action, hidden) = page.form();
        let mut all: Vec<(&str, &str)> = hidden
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        all.retain(|(name, _)| !fields.iter().any(|(other, _)| other == name));
        all.extend(fields);
        self.post(&action, &all)
    }

    /// Types alice's e-mail and password into the sign-in page.
    pub fn sign_in(&mut self, page: &Page) -> Page {
        self.sign_in_as(page, EMAIL, PASSWORD)
    }

    pub fn sign_in_as(&mut self, page: &Page, login: &str, password: &str) -> Page {
        assert!(
            page.has("#login-submit"),
            "not a sign-in page: {} {}",
            page.status,
            page.body
        );
        self.submit(page, &[("login", login), ("password", password)])
    }

    /// Signs in and allows whatever is asked; ends at the client.
    pub fn complete(&mut self, url: &str) -> Page {
        let mut page = self.get(url);
        if page.has("#login-submit") {
            page = self.sign_in(&page);
        }
        if page.has("#consent-allow") {
            page = self.submit(&page, &[("action", "allow")]);
        }
        page
    }

    fn send(&mut self, request: RequestBuilder, url: &str) -> Page {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut request = if cookies.is_empty() {
            request
        } else {
            request.header("cookie", cookies.join("; "))
        };
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        self.receive(request.send().unwrap(), url)
    }

    fn receive(&mut self, response: Response, url: &str) -> Page {
        for line in response.headers().get_all("set-cookie") {
            let line = line.to_str().unwrap();
            self.set_cookies.push(line.to_owned());
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if line.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Page {
            status: response.status().as_u16(),
            url: url.to_owned(),
            headers: response.headers().clone(),
            body: response.text().unwrap(),
        }
    }

    fn follow(&mut self, mut page: Page) -> Page {
        for _ in 0..10 {
            let Some(location) = page.location().filter(|location| self.is_ours(location)) else {
                return page;
            };
            page = self.get_once(&location);
        }
        panic!("redirects without an end, at {}", page.url);
    }

    fn is_ours(&self, location: &str) -> bool {
        location.starts_with('/') || location.starts_with(&format!("{}/", self.issuer))
    }

    fn absolute(&self, url: &str) -> String {
        Url::parse(&self.issuer)
            .unwrap()
            .join(url)
            .unwrap()
            .to_string()
    }
}

impl Page {
    pub fn location(&self) -> Option<String> {
        self.headers
            .get("location")
            .map(|value| value.to_str().unwrap().to_owned())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    /// The parameters that a redirect hands to the client.
    pub fn callback(&self) -> BTreeMap<String, String> {
        let location = self
            .location()
            .unwrap_or_else(|| panic!("no redirect: {} {}", self.status, self.body));
        Url::parse(&location)
            .unwrap()
            .query_pairs()
            .into_owned()
            .collect()
    }

    /// The code that a redirect hands to the client.
    pub fn code(&self) -> String {
        self.callback()
            .remove("code")
            .unwrap_or_else(|| panic!("no code in {:?}", self.location()))
    }

    pub fn has(&self, selector: &str) -> bool {
        Html::parse_document(&self.body)
            .select(&Selector::parse(selector).unwrap())
            .next()
            .is_some()
    }

    pub fn text(&self, selector: &str) -> String {
        let document = Html::parse_document(&self.body);
        let texts: Vec<_> = document
            .select(&Selector::parse(selector).unwrap())
            .flat_map(|element| element.text().collect::<Vec<_>>())
            .collect();
        texts
            .join(" ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub fn attribute(&self, selector: &str, name: &str) -> Option<String> {
        let document = Html::parse_document(&self.body);
        document
            .select(&Selector::parse(selector).unwrap())
            .next()?
            .attr(name)
            .map(str::to_owned)
    }

    pub fn all_attributes(&self, selector: &str, name: &str) -> Vec<String> {
        Html::parse_document(&self.body)
            .select(&Selector::parse(selector).unwrap())
            .filter_map(|element| element.attr(name).map(str::to_owned))
            .collect()
    }

    /// The first form's address and its hidden fields.
    pub fn form(&self) -> (String, Vec<(String, String)>) {
        let document = Html::parse_document(&self.body);
        let form = document
            .select(&Selector::parse("form").unwrap())
            .next()
            .unwrap_or_else(|| panic!("no form in {}", self.body));
        let hidden = form
            .select(&Selector::parse("input[type=hidden]").unwrap())
            .map(|input| {
                (
                    input.attr("name").unwrap().to_owned(),
                    input.attr("value").unwrap_or_default().to_owned(),
                )
            })
            .collect();
        (form.attr("action").unwrap().to_owned(), hidden)
    }
}
