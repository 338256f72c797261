//! The style sheet, the small scripts and the icon: embedded; they hold nothing about anybody and may be cached.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

const CSS: &str = include_str!("../../assets/keepwell.css");
const SCRIPT: &str = include_str!("../../assets/keepwell.js");
const PASSKEY: &str = include_str!("../../assets/passkey.js");
const ICON: &str = include_str!("../../assets/icon.svg");

/// Address of the style sheet.
pub const CSS_URL: &str = "/assets/keepwell.css";
/// Address of the script.
pub const SCRIPT_URL: &str = "/assets/keepwell.js";
/// Address of the script that asks the browser for a passkey.
pub const PASSKEY_URL: &str = "/assets/passkey.js";
/// Address of the icon.
pub const ICON_URL: &str = "/assets/icon.svg";

/// `GET /assets/NAME`; `None` for a name that is not ours.
#[must_use]
pub fn asset(name: &str) -> Option<Response> {
    let (kind, text) = match name {
        "keepwell.css" => ("text/css; charset=utf-8", CSS),
        "keepwell.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "passkey.js" => ("text/javascript; charset=utf-8", PASSKEY),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return None,
    };
    let mut answer = text.into_response();
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    Some(answer)
}
