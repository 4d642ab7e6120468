//! Names to addresses, off every request's way: one task for each name, which asks again when the answer expires.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout};

use super::endpoint::{Address, Endpoint, Known};

/// An answer is used for at least this long, however short its time to live.
const SHORTEST: Duration = Duration::from_secs(1);
/// And is asked for again after this long, however long.
const LONGEST: Duration = Duration::from_secs(60);
/// After a failure. The last good answer stays in use.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps the addresses of named endpoints fresh for as long as anybody holds an endpoint of that name and port.
pub struct Resolver {
    resolver: Arc<TokioResolver>,
    /// By where the addresses are kept.
    watched: Mutex<HashMap<usize, Watched>>,
}

struct Watched {
    known: Weak<Known>,
    task: AbortHandle,
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

    /// Starts a task for each name and port that has none yet, and waits until each of these has had its first answer,
    /// good or bad, or until `limit` is over: a name that does not resolve keeps nobody from starting. Called again for
    /// each snapshot that is to be put in force; what nobody holds any more is no longer asked for.
    pub async fn watch(&self, endpoints: impl Iterator<Item = &Arc<Endpoint>>, limit: Duration) {
        let (answered, mut waiting) = watch::channel(());
        self.begin(endpoints, &answered);
        drop(answered);
        // Every task drops its sender at its first answer; when none is left, `changed` fails.
        let all_answered = async { while waiting.changed().await.is_ok() {} };
        let _ = timeout(limit, all_answered).await;
    }

    fn begin<'a>(&self, endpoints: impl Iterator<Item = &'a Arc<Endpoint>>, answered: &watch::Sender<()>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Before anything is put in: what is new may have the address of what is gone.
        watched.retain(|_, Watched { known, task }| {
            let is_held = known.strong_count() > 0;
            if !is_held {
                task.abort();
            }
            is_held
        });
        for endpoint in endpoints {
            let Some((name, port)) = endpoint.name.clone() else { continue };
            watched.entry(Arc::as_ptr(&endpoint.known) as usize).or_insert_with(|| {
                let known = Arc::downgrade(&endpoint.known);
                let question = Question { name, port, known: known.clone() };
                let task = tokio::spawn(refresh(self.resolver.clone(), question, answered.clone()));
                Watched { known, task: task.abort_handle() }
            });
        }
    }
}

/// A name to be asked for, and where its addresses are kept.
struct Question {
    name: String,
    port: u16,
    known: Weak<Known>,
}

async fn refresh(resolver: Arc<TokioResolver>, question: Question, first: watch::Sender<()>) {
    let Question { name, port, known } = question;
    let mut first = Some(first);
    let mut failing = false;
    loop {
        let answer = resolver.lookup_ip(name.as_str()).await;
        let Some(known) = known.upgrade() else { return };
        let now = Instant::now();
        let again = match answer {
            Ok(answer) => {
                let addresses = sorted(answer.iter(), port);
                if **known.addresses() != addresses {
                    known.replace(addresses);
                }
                failing = false;
                answer.valid_until().clamp(now + SHORTEST, now + LONGEST)
            }
            Err(error) => {
                if !failing {
                    log::warn!(
                        "endpoint `{name}:{port}`: dns_not_found: {error}; asking again every {AGAIN:?}"
                    );
                }
                failing = true;
                now + AGAIN
            }
        };
        drop((known, first.take()));
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

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;

    #[tokio::test]
    async fn a_name_has_one_task_for_as_long_as_anybody_holds_it() {
        let resolver = Resolver::system().unwrap();
        let tasks = || Handle::current().metrics().num_alive_tasks();
        // RFC 6761: no server is asked for this name.
        let endpoint = |known| {
            let name = Some(("localhost".to_owned(), 80));
            let mut endpoint = Endpoint::new("localhost:80".into(), "localhost".into(), 1, name, Vec::new());
            endpoint.known = known;
            Arc::new(endpoint)
        };
        let first = endpoint(Arc::default());
        let (before, same) = (tasks(), endpoint(first.known.clone()));
        for endpoints in [vec![&first], vec![&first], vec![&same, &first]] {
            resolver.watch(endpoints.into_iter(), Duration::from_secs(5)).await;
            assert_eq!(tasks(), before + 1);
        }
        assert!(first.addresses().contains(&Address::tcp("127.0.0.1:80".parse().unwrap())));
        drop(first);
        resolver.watch(std::iter::empty(), Duration::ZERO).await;
        assert_eq!(tasks(), before + 1, "another endpoint is this name too");
        drop(same);
        resolver.watch(std::iter::empty(), Duration::ZERO).await;
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    }
}
