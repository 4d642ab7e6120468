//! Names to addresses, off every request's way: one task for each name, which asks again when the answer expires.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::endpoint::{Address, Endpoint};

/// An answer is used for at least this long, however short its time to live.
const SHORTEST: Duration = Duration::from_secs(1);
/// And is asked for again after this long, however long.
const LONGEST: Duration = Duration::from_secs(60);
/// After a failure. The last good answer stays in use.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps the addresses of named endpoints fresh for as long as anybody holds the endpoint.
pub struct Resolver {
    resolver: Arc<TokioResolver>,
    watched: Mutex<HashMap<usize, Weak<Endpoint>>>,
}

impl Resolver {
    /// Asks as this system is set up to: its name servers, search list and hosts file.
    ///
    /// # Errors
    /// The system's resolver configuration cannot be read.
    pub fn system() -> Result<Self, String> {
        let builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
        let resolver = Arc::new(builder.build().map_err(|error| error.to_string())?);
        Ok(Self { resolver, watched: Mutex::default() })
    }

    /// Starts a task for each named endpoint that has none yet, and waits until each has had its first answer, good
    /// or bad, or until `limit` is over: a name that does not resolve keeps nobody from starting.
    pub async fn watch(&self, endpoints: impl Iterator<Item = &Arc<Endpoint>>, limit: Duration) {
        let (answered, mut waiting) = watch::channel(());
        for endpoint in endpoints.filter(|endpoint| endpoint.name.is_some()) {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.retain(|_, endpoint| endpoint.strong_count() > 0);
            let known = watched.insert(Arc::as_ptr(endpoint) as usize, Arc::downgrade(endpoint));
            if known.is_none() {
                tokio::spawn(refresh(self.resolver.clone(), Arc::downgrade(endpoint), answered.clone()));
            }
        }
        drop(answered);
        // Every task drops its sender at its first answer; when none is left, `changed` fails.
        let all_answered = async { while waiting.changed().await.is_ok() {} };
        let _ = timeout(limit, all_answered).await;
    }
}

async fn refresh(resolver: Arc<TokioResolver>, endpoint: Weak<Endpoint>, first: watch::Sender<()>) {
    let mut first = Some(first);
    let mut failing = false;
    loop {
        let Some((name, port)) = endpoint.upgrade().and_then(|endpoint| endpoint.name.clone()) else {
            return;
        };
        let answer = resolver.lookup_ip(name.as_str()).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        let now = Instant::now();
        let again = match answer {
            Ok(answer) => {
                let addresses = sorted(answer.iter(), port);
                if **endpoint.addresses() != addresses {
                    endpoint.replace_addresses(addresses);
                }
                failing = false;
                answer.valid_until().clamp(now + SHORTEST, now + LONGEST)
            }
            Err(error) => {
                if !failing {
                    log::warn!(
                        "endpoint `{}`: dns_not_found: {error}; asking again every {AGAIN:?}",
                        endpoint.text
                    );
                }
                failing = true;
                now + AGAIN
            }
        };
        drop((endpoint, first.take()));
        sleep_until(again.into()).await;
    }
}

/// In a fixed order, so that the same set is not mistaken for a new one; IPv4 before IPv6.
fn sorted(addresses: impl Iterator<Item = IpAddr>, port: u16) -> Vec<Address> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(|address| Address::tcp(SocketAddr::new(address, port))).collect()
}
