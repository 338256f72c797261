//! The pages of registered clients: which there are, what each may reach, ending one. Registering one, or giving it a
//! key, is done at the machine (`keepwell client`): no page has that.

use super::backend::{Backend, Client, Refusal};
use super::view::{Page, rendered};
use super::{Shared, Token, see_other, split};
use askama::Template;
use axum::extract::{Path, Request, State};
use axum::response::{Html, IntoResponse as _, Response};
use keepwell_model::actor::EntryPath;

#[derive(Template)]
#[template(path = "clients.html")]
struct ListPage<'a> {
    page: &'a Page,
    clients: &'a [Client],
}

#[derive(Template)]
#[template(path = "client.html")]
struct ClientPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    client: &'a Client,
}

/// All clients.
#[must_use]
pub fn render_list(page: &Page, clients: &[Client]) -> String {
    rendered(&ListPage { page, clients })
}

/// One client, with the form that ends it.
#[must_use]
pub fn render_client(page: &Page, csrf: &str, client: &Client) -> String {
    rendered(&ClientPage { page, csrf, client })
}

pub(super) async fn list<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    match pages.backend.clients(&ctx).await {
        Ok(clients) => {
            let page = pages.page("Clients", Some(&session), "/clients");
            Html(render_list(&page, &clients)).into_response()
        }
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

pub(super) async fn show<B: Backend>(State(pages): Shared<B>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    let found = if super::is_id(&id) {
        pages.backend.client(&ctx, &id).await
    } else {
        Err(Refusal::NotFound)
    };
    match found {
        Ok(client) => {
            let page = pages.page("Client", Some(&session), "/clients");
            Html(render_client(&page, &session.csrf, &client)).into_response()
        }
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

pub(super) async fn end<B: Backend>(State(pages): Shared<B>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, form) = split::<Token>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    if let Err(refusal) = pages.checked(form, |f| &f.csrf, &session) {
        return pages.refused(&refusal, Some(&session), &seen);
    }
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    let ended = if super::is_id(&id) {
        pages.backend.end_client(&ctx, &id).await
    } else {
        Err(Refusal::NotFound)
    };
    match ended {
        Ok(()) => see_other("/clients"),
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}
