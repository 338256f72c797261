// Comforts only: every page works without this script. Writes no HTML and keeps nothing.

// A one-time code travels in the fragment, which browsers do not send; it is put into the field and out of the address.
const code = document.getElementById("code");
function takeCode() {
  if (!code || location.hash.length < 2) return;
  code.value = decodeURIComponent(location.hash.slice(1));
  const folded = code.closest("details");
  if (folded) folded.open = true;
  history.replaceState(null, "", location.pathname);
  code.focus();
}
takeCode();
// A link that is opened while the page is there already changes the fragment only.
addEventListener("hashchange", takeCode);

// "/" finds a patient from anywhere.
document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof Element && event.target.closest("input, textarea, select");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = document.querySelector("[data-find]");
  if (field) {
    event.preventDefault();
    field.focus();
  } else if (document.querySelector('nav a[href="/find"]')) {
    event.preventDefault();
    location.assign("/find");
  }
});
