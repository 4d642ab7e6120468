//! The terms on which a listener takes connections, and whether they still hold.
//!
//! A connection outlives the snapshot that it was accepted under. As long as a later one takes connections at the same
//! address on the same terms, it goes on; where not, it serves what is in flight and its next request, and closes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use super::opening::Proxies;
use crate::route::HostPattern;

/// What a connection was promised when it was accepted, and what was asked of it: the whole of what must be the same for
/// it to go on. A certificate is none of it: the client has verified the one that it saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TermsKey {
    /// The listener's name.
    pub listener: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What is spoken there.
    pub spoken: Spoken,
    /// What comes before.
    pub opening: OpeningTerms,
}

/// What is made of a connection's first bytes, as far as one that is open depends on it: whose word on the client's address
/// was taken, and which names were not to be served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OpeningTerms {
    /// Who may tell the client's address.
    pub proxies: Proxies,
    /// The names that pass through where others are served.
    pub passed: Vec<String>,
}

/// What is spoken at a listener, as far as a connection that is open depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// HTTP/1.1.
    Http,
    /// HTTP over TLS.
    Https {
        /// Whether TLS 1.2 is refused.
        from_version_1_3: bool,
        /// The names that the listener has a policy of its own for, of which the client asked for one.
        names: Option<HostPattern>,
        /// Which client certificates are accepted.
        clients: Option<ClientTerms>,
    },
    /// Bytes are passed through.
    Tcp,
    /// Datagrams are.
    Udp,
}

/// Which client certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientTerms {
    /// SHA-256 over the CAs, the revocation lists and the depth.
    pub trust: [u8; 32],
    /// Whether a client without one is refused.
    pub required: bool,
}

impl TermsKey {
    fn clients(&self) -> Option<&ClientTerms> {
        match &self.spoken {
            Spoken::Https { clients, .. } => clients.as_ref(),
            Spoken::Http | Spoken::Tcp | Spoken::Udp => None,
        }
    }

    fn names(&self) -> Option<&HostPattern> {
        match &self.spoken {
            Spoken::Https { names, .. } => names.as_ref(),
            Spoken::Http | Spoken::Tcp | Spoken::Udp => None,
        }
    }
}

/// Terms, and whether they hold.
#[derive(Debug)]
pub struct Terms {
    key: TermsKey,
    over: watch::Sender<bool>,
    /// The same for requests, which take no lock.
    are_over: AtomicBool,
    refuses: AtomicBool,
}

impl Terms {
    fn new(key: TermsKey) -> Self {
        let [are_over, refuses] = [false; 2].map(AtomicBool::new);
        Self { key, over: watch::Sender::new(false), are_over, refuses }
    }

    /// Turns true when connections on these terms are to close: the engine asks for just such a thing. It may turn back,
    /// since a rollback brings terms back.
    pub fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Whether it is true now.
    pub fn are_over(&self) -> bool {
        self.are_over.load(Ordering::Acquire)
    }

    /// Whether not even one more request is to be served on these terms: the listener now asks its clients for another
    /// certificate than these connections were asked for.
    pub fn refuse(&self) -> bool {
        self.refuses.load(Ordering::Acquire)
    }

    /// Which client certificates are accepted on them.
    pub fn clients(&self) -> Option<&ClientTerms> {
        self.key.clients()
    }

    fn set_over(&self, are_over: bool) {
        self.are_over.store(are_over, Ordering::Release);
        // Connections whose terms hold as before are not even woken.
        self.over.send_if_modified(|over| std::mem::replace(over, are_over) != are_over);
    }
}

/// All terms on which there may be connections.
#[derive(Debug, Default)]
pub struct AllTerms(Mutex<HashMap<TermsKey, Weak<Terms>>>);

impl AllTerms {
    /// These terms, made anew only where there are none.
    pub fn intern(&self, key: TermsKey) -> Arc<Terms> {
        // A panic cannot leave the map half changed in a way that matters: at worst terms are made anew.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(terms) = all.get(&key).and_then(Weak::upgrade) {
            return terms;
        }
        all.retain(|_, terms| terms.strong_count() > 0);
        let terms = Arc::new(Terms::new(key.clone()));
        all.insert(key, Arc::downgrade(&terms));
        terms
    }

    /// From now on just these hold.
    pub fn put_in_force<'a>(&self, held: impl Iterator<Item = &'a Arc<Terms>> + Clone) {
        for terms in self.all() {
            let key = &terms.key;
            let holds = held.clone().any(|other| Arc::ptr_eq(other, &terms));
            let now = held.clone().filter(|other| other.key.address.port() == key.address.port());
            let asks_otherwise =
                |other: &&Arc<Terms>| other.key.clients().is_some() && other.key.clients() != key.clients();
            // Where the listener has no policy for these names any more, who knows which of the others is theirs.
            let mut same_names = now.clone().filter(|other| other.key.names() == key.names()).peekable();
            let refuses = match same_names.peek() {
                Some(_) => same_names.any(|other| asks_otherwise(&other)),
                None => now.clone().any(|other| asks_otherwise(&other)),
            };
            terms.refuses.store(!holds && refuses, Ordering::Release);
            terms.set_over(!holds);
        }
    }

    /// From now on none holds: the process is to stop.
    pub fn end(&self) {
        for terms in self.all() {
            terms.set_over(true);
        }
    }

    fn all(&self) -> Vec<Arc<Terms>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect()
    }
}

/// Whether this address takes connections for that one: `0.0.0.0` does for each of the machine's.
pub fn covers(one: SocketAddr, other: SocketAddr) -> bool {
    let takes =
        |ip: IpAddr, other: IpAddr| ip == other || ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4());
    one.port() == other.port()
        && one.port() != 0
        && (takes(one.ip(), other.ip()) || takes(other.ip(), one.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(clients: Option<(u8, bool)>) -> TermsKey {
        by_name(None, clients)
    }

    fn by_name(names: Option<&str>, clients: Option<(u8, bool)>) -> TermsKey {
        let clients = clients.map(|(root, required)| ClientTerms { trust: [root; 32], required });
        let names = names.map(|names| HostPattern::parse(names).unwrap());
        TermsKey {
            listener: "web".into(),
            address: "127.0.0.1:1".parse().unwrap(),
            spoken: Spoken::Https { from_version_1_3: false, names, clients },
            opening: OpeningTerms::default(),
        }
    }

    #[test]
    fn the_same_terms_are_one_and_those_that_nobody_holds_are_forgotten() {
        let all = AllTerms::default();
        let first = all.intern(key(None));
        assert!(Arc::ptr_eq(&first, &all.intern(key(None))));
        for root in 0..100 {
            all.intern(key(Some((root, true))));
        }
        assert_eq!(all.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_connection_is_told_when_its_terms_are_over_and_of_nothing_else() {
        let all = AllTerms::default();
        let (one, other) = (all.intern(key(None)), all.intern(key(Some((1, true)))));
        let over = one.over();
        all.put_in_force([&one].into_iter());
        assert!(!over.has_changed().unwrap(), "they hold still");
        all.put_in_force([&other].into_iter());
        assert!(over.has_changed().unwrap() && *over.borrow());
    }

    #[test]
    fn only_another_demand_for_certificates_refuses_requests_on_older_connections() {
        for (before, after, refuses) in [
            (None, Some((1, true)), true),
            (None, Some((1, false)), true),
            (Some((1, false)), Some((1, true)), true),
            (Some((1, true)), Some((2, true)), true),
            (Some((1, true)), None, false),
        ] {
            let all = AllTerms::default();
            let (old, new) = (all.intern(key(before)), all.intern(key(after)));
            all.put_in_force([&new].into_iter());
            assert!(old.are_over() && !new.are_over());
            assert_eq!((old.refuse(), new.refuse()), (refuses, false), "{before:?} {after:?}");
            all.put_in_force([&old].into_iter());
            assert!(!old.are_over() && !old.refuse(), "a rollback brings them back");
        }
    }

    #[test]
    fn another_demand_of_one_name_leaves_connections_for_other_names_alone() {
        let all = AllTerms::default();
        let [open, strict, next] = [
            by_name(None, None),
            by_name(Some("api.a.test"), Some((1, true))),
            by_name(Some("api.a.test"), Some((2, true))),
        ]
        .map(|key| all.intern(key));
        all.put_in_force([&open, &next].into_iter());
        assert!(!open.are_over() && !open.refuse());
        assert!(strict.are_over() && strict.refuse());
        // A name without a policy of its own any more: whether another one's demand is its own is not known.
        all.put_in_force([&open].into_iter());
        assert!(next.are_over() && !next.refuse(), "nobody is asked for anything");
        let other = all.intern(by_name(Some("*.a.test"), Some((3, true))));
        all.put_in_force([&open, &other].into_iter());
        assert!(next.refuse() && !open.refuse());
    }

    #[test]
    fn an_address_covers_what_it_would_take_connections_for() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "0.0.0.0:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(covers(one.parse().unwrap(), other.parse().unwrap()), expected, "{one} {other}");
        }
    }
}
