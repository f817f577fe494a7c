// A person with a browser that runs no scripts: cookies, redirects inside the issuer, forms.

export class Person {
  #cookies = new Map();
  #issuer;

  constructor(issuer) {
    this.#issuer = issuer;
  }

  // Opens an authorization request, signs in and allows what is asked. Answers where the browser left the issuer, or the page that posts itself there.
  async complete(url, login, password) {
    let page = await this.#open(url);
    for (let steps = 0; steps < 5; steps += 1) {
      if (page.left) return page;
      if (page.html.includes('id="login-submit"')) {
        page = await this.#submit(page, { login, password, action: "sign-in" });
      } else if (page.html.includes('id="consent-allow"')) {
        page = await this.#submit(page, { action: "allow" });
      } else {
        return page;
      }
    }
    throw new Error(`no end to the pages, the last was ${page.url}`);
  }

  async #submit(page, typed) {
    const { action, fields } = form(page);
    return this.#open(new URL(action, page.url), { ...fields, ...typed });
  }

  async #open(url, fields) {
    let at = new URL(url);
    for (let steps = 0; steps < 10; steps += 1) {
      const answer = await fetch(at, {
        method: fields ? "POST" : "GET",
        body: fields && new URLSearchParams(fields),
        headers: {
          cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; "),
          ...(fields && { origin: at.origin }),
        },
        redirect: "manual",
      });
      this.#remember(answer.headers);
      const location = answer.headers.get("location");
      if (location === null) {
        const html = await answer.text();
        if (!answer.ok) throw new Error(`${at.pathname} answered ${answer.status}: ${words(html)}`);
        return { url: at, html };
      }
      at = new URL(location, at);
      fields = undefined;
      if (!`${at}`.startsWith(`${this.#issuer}/`)) return { left: at };
    }
    throw new Error(`no end to the redirects, the last was ${at}`);
  }

  #remember(headers) {
    for (const line of headers.getSetCookie()) {
      const [pair] = line.split(";");
      const [, name, value] = /^([^=]+)=(.*)$/.exec(pair);
      if (value === "" || /max-age=0/i.test(line)) this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
  }
}

// Address and hidden fields of the form that holds the page's last hidden field: the consent page has one to switch accounts before it.
export function form({ html }) {
  const forms = [...html.matchAll(/<form\b[^>]*>.*?<\/form>/gs)].map(([text]) => text);
  const text = forms.reverse().find((candidate) => candidate.includes('type="hidden"'));
  if (!text) throw new Error(`a page without a form: ${words(html)}`);
  const fields = {};
  for (const [tag] of text.matchAll(/<input\b[^>]*type="hidden"[^>]*>/g)) {
    fields[attribute(tag, "name")] = attribute(tag, "value");
  }
  return { action: attribute(text, "action"), fields };
}

function attribute(tag, name) {
  const found = new RegExp(`\\b${name}="([^"]*)"`).exec(tag);
  return found ? unescape(found[1]) : "";
}

function unescape(text) {
  const names = { amp: "&", lt: "<", gt: ">", quot: '"' };
  return text
    .replace(/&#(\d+);/g, (_, number) => String.fromCodePoint(Number(number)))
    .replace(/&#x([0-9a-f]+);/gi, (_, number) => String.fromCodePoint(Number.parseInt(number, 16)))
    .replace(/&(amp|lt|gt|quot);/g, (_, name) => names[name]);
}

function words(html) {
  return html.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").trim().slice(0, 300);
}
