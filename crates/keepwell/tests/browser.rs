//! A walk through the pages in Chromium, with real clicks and keys: sign in, find a patient, read the chart, see who
//! looked at it, open a one-time link. Nothing may be refused by the content security policy or fail in the script.
//!
//! The browser is driven over the DevTools protocol by its pipe; nothing else is needed. Skipped where there is no
//! Chromium. With `KEEPWELL_SCREENSHOTS=DIR` each step leaves a picture there.
#![allow(
    clippy::print_stdout,
    reason = "skipped cases and seeds are told on stdout, which the test run collects"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program"
)]

mod support;

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use support::{Folder, Server, cli, said};

/// How long a page may take on a machine busy with other work.
const PATIENCE: Duration = Duration::from_secs(120);

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|program| program.exists())
}

/// A page of a running Chromium.
struct Page {
    browser: Child,
    commands: File,
    messages: Receiver<Value>,
    session: String,
    next: u64,
    /// Events that came while an answer was waited for.
    seen: Vec<Value>,
}

impl Page {
    /// Starts the browser with a profile of its own. Its pipe is file descriptors 3 and 4, which a shell gives it.
    fn open(program: &Path, folder: &Folder) -> Self {
        let (to, from) = (folder.join("to-browser"), folder.join("from-browser"));
        let made = Command::new("mkfifo").args([&to, &from]).status().expect("mkfifo");
        assert!(made.success());
        let script = "exec \"$0\" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --window-size=1280,1600 --user-data-dir=\"$3\" --remote-debugging-pipe 3<\"$1\" 4>\"$2\"";
        let browser = Command::new("sh")
            .args(["-c", script])
            .args([program, &to, &from, &folder.join("profile")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("chromium.log")).unwrap())
            .spawn()
            .expect("the browser starts");
        let commands = File::options().write(true).open(&to).unwrap();
        let answers = File::open(&from).unwrap();
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            // Messages end with a zero byte.
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    continue;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut page = Self {
            browser,
            commands,
            messages,
            session: String::new(),
            next: 0,
            seen: Vec::new(),
        };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = page.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        page.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "DOM"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page
    }

    fn message(&self) -> Value {
        self.messages.recv_timeout(PATIENCE).expect("the browser answers")
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut command = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.commands
            .write_all(format!("{command}\0").as_bytes())
            .expect("the browser listens");
        loop {
            let message = self.message();
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.seen.push(message);
        }
    }

    /// Does something that leads to another page, and waits until that is there.
    fn follow(&mut self, act: impl FnOnce(&mut Self)) {
        let loaded = |message: &Value| message["method"] == "Page.loadEventFired";
        self.seen.retain(|message| !loaded(message));
        act(self);
        while !self.seen.iter().any(loaded) {
            let message = self.message();
            self.seen.push(message);
        }
    }

    fn go(&mut self, url: &str) {
        self.follow(|page| drop(page.call("Page.navigate", json!({"url": url}))));
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    fn text(&mut self) -> String {
        self.value("document.body.innerText").as_str().unwrap().to_owned()
    }

    fn path(&mut self) -> String {
        self.value("location.pathname + location.search + location.hash")
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Clicks the middle of the first element that a CSS selector finds.
    fn click(&mut self, selector: &str) {
        let at = self.value(&format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; e.scrollIntoView({{block: 'center'}}); \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()",
            json!(selector)
        ));
        assert!(at.is_array(), "nothing to click at {selector}: {}", self.text());
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    fn keys(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    fn enter(&mut self) {
        for kind in ["keyDown", "keyUp"] {
            let key = json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"});
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    fn picture(&mut self, name: &str) {
        let Some(dir) = std::env::var_os("KEEPWELL_SCREENSHOTS") else {
            return;
        };
        let shot = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": true}),
        );
        let file = PathBuf::from(dir).join(format!("{name}.png"));
        fs::write(file, support::unbase64(shot["data"].as_str().unwrap())).expect("the picture is written");
    }

    /// What the browser complained of: refused by the policy, missing, thrown.
    fn complaints(&self) -> Vec<String> {
        let bad = |message: &&Value| {
            message["method"] == "Runtime.exceptionThrown"
                || message["method"] == "Log.entryAdded" && message["params"]["entry"]["level"] == "error"
        };
        self.seen.iter().filter(bad).map(Value::to_string).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

/// Signs in as a login of the demo's list: a click fills the fields, and the code is typed.
fn sign_in(page: &mut Page, url: &str, user: &str) {
    page.go(url);
    assert_eq!(page.path(), "/sign-in");
    assert_eq!(
        page.value("location.hostname"),
        "localhost",
        "a numeric address leads to the name"
    );
    let code = |page: &mut Page| {
        let code = format!("document.querySelector('[data-login=\"{user}\"]').dataset.code");
        page.value(&code).as_str().expect("a code").to_owned()
    };
    let password = page.value(&format!(
        "document.querySelector('[data-login=\"{user}\"]').dataset.password"
    ));
    page.click("#user");
    page.keys(user);
    page.click("#password");
    page.keys(password.as_str().expect("a password"));
    page.follow(Page::enter);
    assert_eq!(page.path(), "/sign-in/second");
    page.picture("second-factor");
    let code = code(page);
    page.click("#factor");
    page.keys(&code);
    page.follow(Page::enter);
}

fn sign_out(page: &mut Page) {
    page.follow(|page| page.click("form.who button"));
    assert_eq!(page.path(), "/sign-in");
}

/// Types a name into the search and follows the first hit.
fn find(page: &mut Page, name: &str) {
    page.click("#name");
    page.keys(name);
    page.follow(Page::enter);
    assert_eq!(page.path(), "/find/results", "nothing of the search is in the address");
    page.picture(&format!("found-{name}"));
    page.follow(|page| page.click("a[href^='/patients/']"));
}

#[test]
fn a_day_at_the_demo_clinic() {
    let Some(program) = chromium() else {
        println!("SKIPPED 1 the walk in a browser: Chromium is not installed (apt-get install chromium)");
        return;
    };
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &[]);
    let url = server.ready["url"].as_str().unwrap().to_owned();
    let mut page = Page::open(&program, &folder);

    page.go(&url);
    page.picture("sign-in");
    sign_in(&mut page, &url, "amara.okafor");
    assert_eq!(page.path(), "/find");
    page.picture("find");
    find(&mut page, "delgado");
    let chart = page.text();
    assert!(chart.contains("Delgado"), "{chart}");
    assert!(chart.to_lowercase().contains("penicillin"), "the allergy: {chart}");
    assert!(
        page.value("document.querySelectorAll('#vitals svg').length").as_u64() >= Some(1),
        "plotted vitals"
    );
    let title = page.value("document.title");
    assert!(
        !title.as_str().unwrap().contains("Delgado"),
        "a title is kept by the browser: {title}"
    );
    page.picture("chart");
    sign_out(&mut page);
    // Back shows nothing: no page was kept.
    page.go(&format!("{}/find", url.replace("127.0.0.1", "localhost")));
    assert_eq!(page.path(), "/sign-in");

    sign_in(&mut page, &url, "ingrid.sorensen");
    find(&mut page, "delgado");
    assert!(page.path().contains("/access"), "{}", page.path());
    let log = page.text();
    assert!(log.contains("Verified.") && log.contains("Amara Okafor"), "{log}");
    assert_eq!(page.value("document.querySelectorAll('td.mark.bad').length"), 0);
    assert!(page.value("document.querySelectorAll('td.mark.good').length").as_u64() >= Some(2));
    page.picture("access-log");
    sign_out(&mut page);

    // An activation link: the code is put into the field and out of the address, and leads to the enrolment.
    sign_in(&mut page, &url, "priya.raman");
    page.go(&format!("http://localhost:{}/users", server.port));
    for (field, text) in [("#id", "new.nurse"), ("#display", "New Nurse")] {
        page.click(field);
        page.keys(text);
    }
    page.follow(|page| page.click("form.narrow button.primary"));
    assert!(
        page.text()
            .contains("Somebody else gives its owner the activation code.")
    );
    page.picture("users");
    sign_out(&mut page);
    let output = cli(&[
        "login-link",
        "--data",
        server.data.to_str().unwrap(),
        "--user",
        "new.nurse",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let link = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(
        link.starts_with(&format!("http://localhost:{}/sign-in#", server.port)),
        "{link}"
    );
    // While the sign-in page is open, opening a link loads nothing.
    let value = "new Promise(r => { addEventListener('hashchange', () => r(document.querySelector('#code').value)); \
                 location.hash = 'first'; })";
    assert_eq!(page.value(value), "first");
    page.go("about:blank");
    page.go(&link);
    assert_eq!(page.path(), "/sign-in", "the code is out of the address");
    assert_eq!(page.value("document.querySelector('#code').value.length > 20"), true);
    page.picture("link");
    page.follow(|page| page.click("details button"));
    assert_eq!(page.path(), "/security");
    assert!(page.text().contains("Choose how you sign in"));
    page.picture("security");
    sign_out(&mut page);

    assert_eq!(page.complaints(), [""; 0]);
}

/// A virtual authenticator, as `WebAuthn.addVirtualAuthenticator` of the DevTools protocol makes them.
fn authenticator(page: &mut Page, verifies: bool) -> String {
    let options = json!({
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
        "isUserVerified": verifies, "automaticPresenceSimulation": true,
    });
    let made = page.call("WebAuthn.addVirtualAuthenticator", json!({ "options": options }));
    made["authenticatorId"].as_str().expect("an id").to_owned()
}

/// Registration, sign-in, a wrong origin, a cloned counter and a missing user verification (IAM-3).
#[test]
fn passkeys_sign_in_and_are_bound_to_site_person_and_device() {
    let Some(program) = chromium() else {
        println!("SKIPPED 1 passkeys in a browser: Chromium is not installed (apt-get install chromium)");
        return;
    };
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let url = server.ready["url"].as_str().unwrap().to_owned();
    let home = format!("http://localhost:{}", server.port);
    let mut page = Page::open(&program, &folder);
    page.call("WebAuthn.enable", json!({}));
    let key = authenticator(&mut page, true);

    // Register.
    sign_in(&mut page, &url, "amara.okafor");
    page.go(&format!("{home}/security"));
    page.follow(|page| page.click("button[value=passkey]"));
    page.click("#name");
    page.keys("Ward tablet");
    page.follow(|page| page.click("form[data-passkey] button"));
    assert!(page.text().contains("The passkey is added."), "{}", page.text());
    page.picture("passkey");
    sign_out(&mut page);

    // Sign in with nothing typed.
    let by_passkey = |page: &mut Page| {
        page.go(&format!("{home}/sign-in"));
        page.follow(|page| page.click("form[action='/sign-in/passkey'] button"));
    };
    by_passkey(&mut page);
    page.follow(|page| page.click("form[data-passkey] button"));
    assert_eq!(page.path(), "/find");
    assert!(page.text().contains("Okafor"));
    // And as the second factor of a password, and as a fresh proof.
    page.go(&format!("{home}/confirm?to=security"));
    page.follow(|page| page.click("form:nth-of-type(2) button"));
    page.follow(|page| page.click("form[data-passkey] button"));
    assert_eq!(page.path(), "/security");
    sign_out(&mut page);

    // While strangers guess at the password, many at once, the passkey opens as before.
    let guesses = support::setting("KEEPWELL_GUESSES", 400);
    let from_elsewhere = |guess: u64| {
        let host = format!("localhost:{}", server.port);
        let headers = [
            ("Host", host.as_str()),
            ("Sec-Fetch-Site", "same-origin"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let form = format!("user=amara.okafor&password=guess+number+{guess}");
        let answer = server
            .client_with("")
            .send("POST", "/sign-in", &headers, Some(form.as_bytes()));
        assert_eq!(answer.status, 401, "{}", answer.text());
    };
    std::thread::scope(|threads| {
        for first in 0..8 {
            threads.spawn(move || (first..guesses).step_by(8).for_each(from_elsewhere));
        }
    });
    by_passkey(&mut page);
    page.follow(|page| page.click("form[data-passkey] button"));
    assert_eq!(page.path(), "/find");
    sign_out(&mut page);

    // Without user verification: the browser is made to ask for none, the server does not take it.
    let unverified = "(() => { const get = navigator.credentials.get.bind(navigator.credentials); \
                      navigator.credentials.get = (o) => { o.publicKey.userVerification = 'discouraged'; return get(o); }; })()";
    page.call(
        "WebAuthn.setUserVerified",
        json!({"authenticatorId": key, "isUserVerified": false}),
    );
    by_passkey(&mut page);
    page.value(unverified);
    page.follow(|page| page.click("form[data-passkey] button"));
    assert!(page.text().contains("The passkey was not accepted."), "{}", page.text());
    page.call(
        "WebAuthn.setUserVerified",
        json!({"authenticatorId": key, "isUserVerified": true}),
    );

    // A response that was made for another site: the browser signs the origin it sees, here that of another port.
    // Cookies do not know of ports, so the sign-in under way is put back after the visit: all fits but the origin.
    let elsewhere = Folder::new();
    let other = Server::demo_in(elsewhere.path(), &["--patients", "0"]);
    by_passkey(&mut page);
    let cookies = page.call("Network.getCookies", json!({"urls": [home]}));
    let stage = cookies["cookies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == "keepwell-stage");
    let stage = stage.expect("a sign-in under way")["value"].clone();
    let options = page.value("document.querySelector('[data-passkey]').dataset.passkey");
    page.go(&format!("http://localhost:{}/sign-in", other.port));
    page.follow(|page| page.click("form[action='/sign-in/passkey'] button"));
    page.value(&format!(
        "(() => {{ const form = document.querySelector('[data-passkey]'); form.dataset.passkey = {options}; \
         window.sent = new Promise(done => {{ form.requestSubmit = () => done(form.elements.response.value); }}); }})()"
    ));
    page.click("form[data-passkey] button");
    let stolen = page.value("window.sent");
    let cookie = json!({"name": "keepwell-stage", "value": stage, "url": home, "httpOnly": true, "sameSite": "Strict"});
    assert_eq!(page.call("Network.setCookie", cookie)["success"], true);
    page.go(&format!("{home}/sign-in"));
    page.value(&format!(
        "(() => {{ const form = document.querySelector(\"form[action='/sign-in/passkey']\"); \
         const field = document.createElement('input'); field.name = 'response'; field.value = {stolen}; field.type = 'hidden'; \
         form.append(field); }})()"
    ));
    page.follow(|page| page.click("form[action='/sign-in/passkey'] button"));
    assert!(page.text().contains("The passkey was not accepted."), "{}", page.text());

    // A copy of the passkey with an older counter: refused, and the passkey works no more.
    let kept = page.call("WebAuthn.getCredentials", json!({ "authenticatorId": key }));
    by_passkey(&mut page);
    page.follow(|page| page.click("form[data-passkey] button"));
    assert_eq!(page.path(), "/find");
    sign_out(&mut page);
    page.call("WebAuthn.removeVirtualAuthenticator", json!({ "authenticatorId": key }));
    let clone = authenticator(&mut page, true);
    let mut credential = kept["credentials"][0].clone();
    credential["signCount"] = json!(1);
    page.call(
        "WebAuthn.addCredential",
        json!({"authenticatorId": clone, "credential": credential}),
    );
    for _ in 0..2 {
        by_passkey(&mut page);
        page.follow(|page| page.click("form[data-passkey] button"));
        assert!(page.text().contains("The passkey was not accepted."), "{}", page.text());
    }
    sign_in(&mut page, &url, "amara.okafor");
    page.go(&format!("{home}/security"));
    assert!(page.text().contains("may have been copied"), "{}", page.text());
}
