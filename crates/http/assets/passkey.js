// Passkeys: browsers give them to scripts only. Reads what the server asks for, hands the answer to the page's form.
const form = document.querySelector("form[data-passkey]");

function bytes(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (c) => c.charCodeAt(0));
}

function text(buffer) {
  const plain = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(plain).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function ask(options, make) {
  const key = { ...options, challenge: bytes(options.challenge) };
  for (const list of ["allowCredentials", "excludeCredentials"]) {
    if (key[list]) key[list] = key[list].map((c) => ({ ...c, id: bytes(c.id) }));
  }
  if (make) {
    key.user = { ...key.user, id: bytes(key.user.id) };
    return navigator.credentials.create({ publicKey: key });
  }
  return navigator.credentials.get({ publicKey: key });
}

function said(credential) {
  const response = {};
  for (const part of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[part]) response[part] = text(credential.response[part]);
  }
  if (credential.response.authenticatorData && credential.response.attestationObject) delete response.authenticatorData;
  return { id: credential.id, rawId: text(credential.rawId), type: credential.type, response, extensions: {} };
}

if (form) {
  form.addEventListener("submit", async (event) => {
    if (form.elements.response.value) return;
    event.preventDefault();
    const problem = form.querySelector("[role=alert]");
    problem.hidden = true;
    try {
      const credential = await ask(JSON.parse(form.dataset.passkey), form.dataset.make === "true");
      form.elements.response.value = JSON.stringify(said(credential));
      form.requestSubmit();
    } catch {
      problem.hidden = false;
    }
  });
}
