//! What a provider publishes about itself, fetched when it is needed and kept as long as it says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use keepwell_model::time::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use webauthn_rs::prelude::Url;

use super::provider::Provider;
use super::verify::{Flaw, Keys, Presented};
use crate::documents::BoxFuture;

/// Kept for an hour where the provider does not say.
const KEPT_S: i64 = 60 * 60;
/// Kept at least and at most this long, whatever it says.
const KEPT_RANGE_S: (i64, i64) = (60, 24 * 60 * 60);
/// Keys are asked for again because of an unknown one this often.
const REFETCH_S: i64 = 60;

/// A request that leaves this machine.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Where to: https, or http on loopback.
    pub url: &'a str,
    /// A form to post; otherwise it is a GET.
    pub form: Option<&'a str>,
}

/// What came back.
pub struct Reply {
    /// HTTP status; a redirect is an answer like any other, and not followed.
    pub status: u16,
    /// `max-age` of `Cache-Control`, in seconds; 0 for `no-store` and `no-cache`.
    pub max_age_s: Option<i64>,
    /// The body.
    pub body: Vec<u8>,
}

/// Nothing came back: no connection, no trust, too slow, too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity provider cannot be reached")]
pub struct Unreachable;

/// Sends requests to identity providers. Bounded in time and size; follows no redirects; verifies the other side's certificate.
pub trait Outbound: Send + Sync {
    /// Sends one request.
    ///
    /// # Errors
    /// [`Unreachable`].
    fn send<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Reply, Unreachable>>;
}

/// A provider's own description (OpenID Connect Discovery 1.0, RFC 8414).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Metadata {
    issuer: String,
    pub(crate) authorization_endpoint: String,
    pub(crate) token_endpoint: String,
    jwks_uri: String,
    /// It says who it is in its answers (RFC 9207).
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

#[derive(Default)]
struct Kept {
    metadata: Option<(Arc<Metadata>, i64)>,
    keys: Option<(Arc<Keys>, i64)>,
    /// When keys were last asked for because of an unknown one.
    refetched: Option<i64>,
}

/// One provider: whoever holds `kept` asks for all who wait.
#[derive(Default)]
struct Lane {
    failures: AtomicU64,
    kept: tokio::sync::Mutex<Kept>,
}

/// What is known of the providers.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<String, Arc<Lane>>>);

impl Lanes {
    /// Forgets everything.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Of providers that exist only: lanes are taken away all at once.
    fn lane(&self, provider: &Provider) -> Arc<Lane> {
        Arc::clone(self.0.lock().entry(provider.id.clone()).or_default())
    }

    /// The provider's description.
    pub(crate) async fn metadata(
        &self,
        net: &dyn Outbound,
        provider: &Provider,
        now: Timestamp,
    ) -> Result<Arc<Metadata>, Unreachable> {
        let lane = self.lane(provider);
        let failures = lane.failures.load(Ordering::Acquire);
        let mut kept = lane.kept.lock().await;
        lane.described(&mut kept, failures, net, provider, now.0.div_euclid(1000))
            .await
    }

    /// Checks a token's signature by the keys the provider publishes. An unknown key makes them be fetched anew, at most
    /// once a minute.
    pub(crate) async fn check_signature(
        &self,
        net: &dyn Outbound,
        provider: &Provider,
        token: &Presented<'_>,
        now: Timestamp,
    ) -> Result<Result<(), Flaw>, Unreachable> {
        let now_s = now.0.div_euclid(1000);
        let lane = self.lane(provider);
        let failures = lane.failures.load(Ordering::Acquire);
        let mut kept = lane.kept.lock().await;
        let known = kept.keys.as_ref().filter(|(_, until)| now_s < *until);
        let keys = match known.map(|(keys, _)| Arc::clone(keys)) {
            Some(keys) => keys,
            None => lane.published(&mut kept, failures, net, provider, now_s).await?,
        };
        let checked = token.check_signature(provider, &keys);
        let may_ask = kept.refetched.is_none_or(|t| now_s.saturating_sub(t) >= REFETCH_S);
        if checked != Err(Flaw::Key) || !may_ask {
            return Ok(checked);
        }
        kept.refetched = Some(now_s);
        let keys = lane.published(&mut kept, failures, net, provider, now_s).await?;
        Ok(token.check_signature(provider, &keys))
    }
}

impl Lane {
    async fn described(
        &self,
        kept: &mut Kept,
        failures: u64,
        net: &dyn Outbound,
        provider: &Provider,
        now_s: i64,
    ) -> Result<Arc<Metadata>, Unreachable> {
        if let Some((known, until)) = &kept.metadata
            && now_s < *until
        {
            return Ok(Arc::clone(known));
        }
        let url = format!(
            "{}/.well-known/openid-configuration",
            provider.issuer.trim_end_matches('/')
        );
        let (body, age) = self.fetch(failures, net, provider, &url).await?;
        let mut found: Metadata = self.read(&body)?;
        let places = [&found.authorization_endpoint, &found.token_endpoint, &found.jwks_uri];
        // A description of somebody else, or one that sends us elsewhere, is none.
        if found.issuer != provider.issuer || !places.iter().all(|url| provider.may_reach(url)) {
            return Err(self.failed());
        }
        // In the spelling that was judged, so that nobody reads them in another way.
        for url in [&mut found.token_endpoint, &mut found.jwks_uri] {
            *url = Url::parse(url).map_err(|_| self.failed())?.into();
        }
        let found = Arc::new(found);
        kept.metadata = Some((Arc::clone(&found), now_s.saturating_add(age)));
        Ok(found)
    }

    async fn published(
        &self,
        kept: &mut Kept,
        failures: u64,
        net: &dyn Outbound,
        provider: &Provider,
        now_s: i64,
    ) -> Result<Arc<Keys>, Unreachable> {
        let metadata = self.described(kept, failures, net, provider, now_s).await?;
        let (body, age) = self.fetch(failures, net, provider, &metadata.jwks_uri).await?;
        let keys = Arc::new(Keys::read(&body).ok_or_else(|| self.failed())?);
        kept.keys = Some((Arc::clone(&keys), now_s.saturating_add(age)));
        Ok(keys)
    }

    fn failed(&self) -> Unreachable {
        self.failures.fetch_add(1, Ordering::AcqRel);
        Unreachable
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Unreachable> {
        serde_json::from_slice(body).map_err(|_| self.failed())
    }

    /// The body and how long it may be kept. Who has waited for another's failure does not try again.
    async fn fetch(
        &self,
        failures: u64,
        net: &dyn Outbound,
        provider: &Provider,
        url: &str,
    ) -> Result<(Vec<u8>, i64), Unreachable> {
        if self.failures.load(Ordering::Acquire) != failures || !provider.may_reach(url) {
            return Err(Unreachable);
        }
        match net.send(Call { url, form: None }).await {
            Ok(reply) if reply.status == 200 => {
                let age = reply.max_age_s.unwrap_or(KEPT_S).clamp(KEPT_RANGE_S.0, KEPT_RANGE_S.1);
                Ok((reply.body, age))
            }
            _ => Err(self.failed()),
        }
    }
}
