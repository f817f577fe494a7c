// As much of the WebDriver protocol as these tests need, so that the browser and its driver are the distribution's own.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";

export class Browser {
  #driver;
  #session;
  #profile;

  static async start() {
    const browser = new Browser();
    browser.#profile = await mkdtemp(join(tmpdir(), "latchkey-chromium-"));
    browser.#driver = spawn(process.env.CHROMEDRIVER ?? "chromedriver", ["--port=0"], { stdio: ["ignore", "pipe", "inherit"] });
    const port = await listening(browser.#driver);
    const { sessionId } = await call("POST", `http://127.0.0.1:${port}/session`, {
      capabilities: {
        alwaysMatch: {
          browserName: "chrome",
          "goog:loggingPrefs": { browser: "ALL" },
          "goog:chromeOptions": {
            binary: process.env.CHROMIUM ?? "/usr/bin/chromium",
            args: [
              "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
              "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
              `--user-data-dir=${browser.#profile}`,
            ],
          },
        },
      },
    });
    browser.#session = `http://127.0.0.1:${port}/session/${sessionId}`;
    return browser;
  }

  async open(url) {
    await call("POST", `${this.#session}/url`, { url });
  }

  async address() {
    return call("GET", `${this.#session}/url`);
  }

  async forgetCookies() {
    await call("DELETE", `${this.#session}/cookie`);
  }

  async text(css) {
    return call("GET", `${this.#session}/element/${await this.find(css)}/text`);
  }

  async type(css, text) {
    await call("POST", `${this.#session}/element/${await this.find(css)}/value`, { text });
  }

  async click(css) {
    await call("POST", `${this.#session}/element/${await this.find(css)}/click`, {});
  }

  // Waits for an element; a page that never shows it is the failure, so it is named with where the browser is.
  async find(css) {
    for (const until = Date.now() + 20_000; Date.now() < until; ) {
      const found = await call("POST", `${this.#session}/elements`, { using: "css selector", value: css });
      if (found.length > 0) return found[0][ELEMENT];
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const console = (await this.errors()).join("; ");
    throw new Error(`${css} did not appear at ${await this.address()} ${console}`);
  }

  // What the console complained about since the last call: scripts, requests, and what a policy blocked.
  async errors() {
    const entries = await call("POST", `${this.#session}/se/log`, { type: "browser" });
    return entries.filter(({ level }) => level === "SEVERE").map(({ message }) => message);
  }

  async stop() {
    if (this.#session) await call("DELETE", this.#session).catch(() => {});
    this.#driver?.kill();
    if (this.#profile) await rm(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }).catch(() => {});
  }
}

async function listening(driver) {
  const failed = new Promise((_, reject) => driver.once("error", reject));
  const started = (async () => {
    for await (const line of createInterface({ input: driver.stdout })) {
      const port = /started successfully on port (\d+)/.exec(line)?.[1];
      if (port) return port;
    }
    throw new Error("chromedriver ended before it listened");
  })();
  return Promise.race([started, failed]);
}

async function call(method, url, body) {
  const answer = await fetch(url, {
    method,
    headers: { "content-type": "application/json" },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  });
  const { value } = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${new URL(url).pathname}: ${value.error}: ${value.message.split("\n")[0]}`);
  return value;
}
