//! Page links: a place in an answer, sealed for the actor and the request it was made for.

use crate::answer::Refusal;
use crate::door::Door;
use keepwell_model::actor::Context;

/// Name of the parameter that carries a sealed place.
pub const CURSOR: &str = "_cursor";

/// A request whose answer comes in pages.
pub(crate) struct Paged<'a> {
    /// The server's base, absolute, without a final slash.
    pub(crate) base: &'a str,
    /// What was asked, from the base on.
    pub(crate) path: String,
    /// Parameters that every link repeats, encoded, without `?`. None where a value may not stand in a link: such a
    /// request puts its parameters into the sealed place.
    pub(crate) echo: &'a str,
}

impl Paged<'_> {
    /// The link to this answer.
    pub(crate) fn own_link(&self) -> String {
        let mark = if self.echo.is_empty() { "" } else { "?" };
        format!("{}{}{mark}{}", self.base, self.path, self.echo)
    }

    /// A place opens only for the actor and the request it was made for.
    fn context(&self, ctx: &Context) -> Vec<u8> {
        let a = &ctx.actor;
        let patient = a.patient.as_deref().unwrap_or("");
        format!(
            "page\n{}\n{}\n{patient}\n{}\n{}",
            a.id,
            a.role.name(),
            self.path,
            self.echo
        )
        .into_bytes()
    }
}

impl Door {
    /// The link to the page that begins at `place`.
    pub(crate) fn next_link(&self, ctx: &Context, paged: &Paged<'_>, place: &[u8]) -> Result<String, Refusal> {
        let sealed = self
            .ledger
            .seal_note(&paged.context(ctx), place)
            .map_err(|_| Refusal::unavailable("the server is sealed"))?;
        let mark = if paged.echo.is_empty() { "?" } else { "&" };
        Ok(format!(
            "{}{mark}{CURSOR}={}",
            paged.own_link(),
            crate::base64url(&sealed)
        ))
    }

    /// The place that a link's parameter carries.
    ///
    /// # Errors
    /// 400 where it was made for somebody else or another request, or is not one.
    pub(crate) fn place(&self, ctx: &Context, paged: &Paged<'_>, token: &str) -> Result<Vec<u8>, Refusal> {
        crate::from_base64url(token)
            .and_then(|sealed| self.ledger.open_note(&paged.context(ctx), &sealed))
            .ok_or_else(not_a_place)
    }

    /// A place that is one number; `None` on the first page.
    ///
    /// # Errors
    /// As [`Door::place`].
    pub(crate) fn place_number(
        &self,
        ctx: &Context,
        paged: &Paged<'_>,
        token: Option<&str>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(token) = token else { return Ok(None) };
        let bytes = self.place(ctx, paged, token)?;
        let number = bytes.try_into().map_err(|_| not_a_place())?;
        Ok(Some(u64::from_le_bytes(number)))
    }
}

pub(crate) fn not_a_place() -> Refusal {
    Refusal::new(
        400,
        "invalid",
        "this page link is not valid for you or this request; start again",
    )
}
