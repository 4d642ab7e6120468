//! What one snapshot takes over from those before it, as long as any of them is held: found by its definition, never
//! by its place in the file.
//!
//! TLS policies have an index of their own, `upstream::Policies`; counts are kept by `observe::Metrics`.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::outbound::CallerDefinition;
use super::plugins::KeptPlugins;
use super::upstreams::protocol;
use super::{Action, Https, Snapshot};
use crate::config::{EndpointAddress, KeepaliveConfig, MatchConfig, RouteConfig, TlsVersion, UpstreamConfig};
use crate::listener::Policy;
use crate::upstream::{Caller, Known, Protocol, Upstream};

/// What may be taken over. Nothing here keeps anything alive.
#[derive(Default)]
pub struct Kept {
    /// With whose turn it is.
    pub upstreams: Index<UpstreamDefinition, Upstream>,
    /// What is known of a name and port.
    pub addresses: Index<(String, u16), Known>,
    /// Whether an upstream has said that it wants HTTP/1.1 for what one route asks under one TLS policy.
    pub wants_http1: Index<(Owner, UpstreamDefinition, u64), AtomicBool>,
    /// With the keys of their clients' sessions.
    pub https: Index<HttpsDefinition, Https>,
    /// With their idle connections.
    pub callers: Index<CallerDefinition, Caller>,
    /// With what they have counted and learnt.
    pub plugins: KeptPlugins,
}

/// Values by their definition, for as long as anybody else holds them.
pub struct Index<K, V: ?Sized>(Mutex<Entries<K, V>>);

struct Entries<K, V: ?Sized> {
    values: HashMap<K, Weak<V>>,
    /// At so many, those that nobody holds are taken out.
    sweep_at: usize,
}

pub(super) const FIRST_SWEEP: usize = 64;

impl<K, V: ?Sized> Default for Index<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries { values: HashMap::new(), sweep_at: FIRST_SWEEP }))
    }
}

impl<K: Hash + Eq, V: ?Sized> Index<K, V> {
    /// The value of this definition, made only where there is none.
    pub fn take_over(&self, definition: K, make: impl FnOnce() -> Arc<V>) -> Arc<V> {
        let made = self.try_take_over(definition, || Ok::<_, std::convert::Infallible>(make()));
        let Ok(value) = made;
        value
    }

    /// The same where it may be that it cannot be made.
    pub fn try_take_over<E>(
        &self,
        definition: K,
        make: impl FnOnce() -> Result<Arc<V>, E>,
    ) -> Result<Arc<V>, E> {
        // A panic while a value is made leaves the index without it.
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Entries { values, sweep_at } = &mut *entries;
        if let Some(value) = values.get(&definition).and_then(Weak::upgrade) {
            return Ok(value);
        }
        let value = make()?;
        if values.len() >= *sweep_at {
            values.retain(|_, value| value.strong_count() > 0);
            *sweep_at = FIRST_SWEEP.max(2 * values.len());
        }
        values.insert(definition, Arc::downgrade(&value));
        Ok(value)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().values.len()
    }
}

/// All that an `Upstream` is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamDefinition {
    name: String,
    /// Each with its weight.
    endpoints: Vec<(EndpointAddress, u32)>,
    tls: bool,
    protocol: Protocol,
    connect_timeout: Duration,
    idle_timeout: Duration,
}

impl UpstreamDefinition {
    /// That of the upstream of this name.
    pub fn new(name: &str, config: &UpstreamConfig) -> Self {
        // What is in `tls` and `host` is compiled for each target.
        let UpstreamConfig { endpoints, tls, protocol: _, host: _, connect_timeout, keepalive } = config;
        let KeepaliveConfig { idle_timeout } = keepalive;
        Self {
            name: name.to_owned(),
            endpoints: endpoints.iter().map(|it| (it.address.clone(), it.weight)).collect(),
            tls: tls.is_some(),
            protocol: protocol(config),
            connect_timeout: *connect_timeout,
            idle_timeout: *idle_timeout,
        }
    }
}

/// All that an `Https` is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpsDefinition {
    /// SHA-256 over each chain. A key is told by the certificate that it belongs to.
    pub chains: Vec<[u8; 32]>,
    /// Which client certificates are accepted, by name.
    pub policies: Vec<Policy>,
    /// The lowest version of TLS.
    pub min_version: TlsVersion,
}

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Every route's.
    Everyone,
    /// That of the route of this name.
    Route(String),
    /// That of a route without a name, which is told by what it matches.
    Match(MatchConfig),
}

impl Owner {
    /// This route.
    pub fn of(route: &RouteConfig) -> Self {
        match &route.name {
            Some(name) => Self::Route(name.clone()),
            None => Self::Match(route.r#match.clone()),
        }
    }
}

impl Snapshot {
    /// The keys of the TLS policies by which its requests go, for `Policies::put_in_force`.
    pub fn policy_keys(&self) -> HashSet<u64> {
        let targets = self.routes.iter().filter_map(|route| match &route.action {
            Action::Forward { targets, .. } => Some(targets),
            Action::Respond { .. } | Action::Redirect(_) => None,
        });
        let tls = targets.flatten().filter_map(|target| target.tls.as_ref());
        tls.flat_map(|tls| {
            [Some(tls.policy.key), tls.http1.as_ref().map(|http1| http1.policy.key)].into_iter().flatten()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::ptr;

    use vestibule_plugins::Registry;
    use vestibule_plugins::retry::RetryPolicy;

    use super::*;
    use crate::config::parse;
    use crate::snapshot::{Route, Workshop, compile};
    use crate::upstream::{Address, Tried};

    #[test]
    fn an_upstream_of_the_same_definition_is_the_same_with_its_turn() {
        let workshop = workshop();
        let endpoints = "[\"127.0.0.1:2\", \"127.0.0.1:3\"]";
        let first = upstream(&workshop, &format!("endpoints: {endpoints}"));
        let turn = |snapshot: &Snapshot| {
            snapshot.upstreams[0].balance.pick(&Tried::new()).unwrap().address.to_string()
        };
        assert_eq!(turn(&first), "127.0.0.1:2");
        for same in [
            format!("endpoints: {endpoints}"),
            format!("endpoints: {endpoints}, host: endpoint"),
            format!("endpoints: {endpoints}, connect_timeout: 5000ms"),
        ] {
            let next = upstream(&workshop, &same);
            assert!(Arc::ptr_eq(&first.upstreams[0], &next.upstreams[0]), "{same}");
        }
        assert_eq!(turn(&upstream(&workshop, &format!("endpoints: {endpoints}"))), "127.0.0.1:3");
        for other in [
            "endpoints: [\"127.0.0.1:3\", \"127.0.0.1:2\"]".to_owned(),
            "endpoints: [{ address: \"127.0.0.1:2\", weight: 2 }, \"127.0.0.1:3\"]".to_owned(),
            format!("endpoints: {endpoints}, tls: {{ verify: false }}"),
            format!("endpoints: {endpoints}, protocol: h2c"),
            format!("endpoints: {endpoints}, connect_timeout: 1s"),
            format!("endpoints: {endpoints}, keepalive: {{ idle_timeout: 1s }}"),
        ] {
            let next = upstream(&workshop, &other);
            assert!(!Arc::ptr_eq(&first.upstreams[0], &next.upstreams[0]), "{other}");
        }
    }

    #[test]
    fn an_upstream_is_told_by_its_name_and_not_by_its_place() {
        let workshop = workshop();
        let listed = |names: [&str; 2]| {
            let one = |name| format!("{name}: {{ endpoints: [\"127.0.0.1:2\"] }}");
            of(&workshop, &format!("upstreams: {{ {}, {} }}\n", one(names[0]), one(names[1])))
        };
        let (first, next) = (listed(["b", "c"]), listed(["a", "b"]));
        let named =
            |snapshot: &Snapshot| snapshot.upstreams.iter().find(|it| it.name == "b").unwrap().clone();
        assert!(Arc::ptr_eq(&named(&first), &named(&next)));
    }

    #[test]
    fn an_endpoint_of_a_changed_upstream_keeps_its_addresses_and_its_record() {
        let workshop = workshop();
        let first = upstream(&workshop, "endpoints: [\"a.test:80\", \"b.test:80\"]");
        let resolved = vec![Address::tcp("127.0.0.9:80".parse().unwrap())];
        let a = &first.upstreams[0].balance.endpoints()[0];
        a.known.replace(resolved.clone());
        let next = upstream(
            &workshop,
            "endpoints: [\"c.test:80\", \"a.test:81\", { address: \"a.test:80\", weight: 3 }]",
        );
        let [other_name, other_port, same] = next.upstreams[0].balance.endpoints() else { panic!() };
        assert_eq!(**same.addresses(), resolved);
        assert!(Arc::ptr_eq(&same.record, &a.record));
        assert!(other_name.addresses().is_empty() && other_port.addresses().is_empty());
        a.known.replace(Vec::new());
        assert!(same.addresses().is_empty(), "what is learnt later counts for both");
    }

    #[test]
    fn a_plugin_of_the_same_definition_keeps_its_state_wherever_its_route_stands() {
        let workshop = workshop();
        let (retry, other) = ("retry: { budget: 20% }", "retry: { budget: 30% }");
        let named = |name: &str, plugin: &str| {
            format!("{{ name: {name}, match: {{ hosts: {name}.test }}, upstream: u, plugins: [{plugin}] }}")
        };
        let unnamed =
            |host: &str| format!("{{ match: {{ hosts: {host} }}, upstream: u, plugins: [{retry}] }}");
        let first = routes(&workshop, &[named("a", retry), named("b", retry), unnamed("c.test")]);
        assert!(!ptr::eq(budget(&first.routes[0]), budget(&first.routes[1])), "each route has its own");

        let moved = routes(&workshop, &[unnamed("c.test"), named("b", retry), named("a", retry)]);
        for (before, after) in [(0, 2), (1, 1), (2, 0)] {
            assert!(ptr::eq(budget(&first.routes[before]), budget(&moved.routes[after])), "{before}");
        }
        let changed = routes(&workshop, &[named("a", other), named("d", retry), unnamed("d.test")]);
        for route in &changed.routes {
            for before in first.routes.iter().chain(&moved.routes) {
                assert!(!ptr::eq(budget(before), budget(route)), "{}", route.name);
            }
        }
        let back = routes(&workshop, &[named("a", retry)]);
        assert!(ptr::eq(budget(&first.routes[0]), budget(&back.routes[0])), "the first is still held");
    }

    #[test]
    fn equal_plugins_of_one_owner_are_told_apart_by_their_number() {
        let workshop = workshop();
        let route = "{ upstream: u, plugins: [retry: {}] }".to_owned();
        let two = || routes(&workshop, &[route.clone(), route.clone()]);
        let (first, next) = (two(), two());
        assert!(!ptr::eq(budget(&first.routes[0]), budget(&first.routes[1])));
        for index in [0, 1] {
            assert!(ptr::eq(budget(&first.routes[index]), budget(&next.routes[index])));
        }
    }

    #[test]
    fn an_upstream_that_wants_http1_need_not_say_so_again() {
        let workshop = workshop();
        let listed = |name: &str, policy: &str| {
            of(
                &workshop,
                &format!(
                    "upstreams: {{ u: {{ endpoints: [\"127.0.0.1:2\"], protocol: auto, tls: {{ {policy} }} }} }}\n\
                     routes: [{{ name: {name}, upstream: u }}]\n"
                ),
            )
        };
        let required = |snapshot: &Snapshot| {
            let Action::Forward { targets, .. } = &snapshot.routes[0].action else { panic!() };
            targets[0].tls.as_ref().unwrap().http1.as_ref().unwrap().required.clone()
        };
        let first = listed("a", "verify: false");
        assert!(Arc::ptr_eq(&required(&first), &required(&listed("a", "verify: false"))));
        for (name, policy) in [("b", "verify: false"), ("a", "verify: false, max_version: \"1.2\"")] {
            assert!(!Arc::ptr_eq(&required(&first), &required(&listed(name, policy))), "{name} {policy}");
        }
        assert_eq!(first.policy_keys().len(), 2, "one with HTTP/2 and one without");
    }

    #[test]
    fn a_thousand_compiles_leave_nothing_behind() {
        let workshop = workshop();
        for number in 0..1000 {
            of(
                &workshop,
                &format!(
                    "upstreams: {{ u: {{ endpoints: [\"a{number}.test:80\"], protocol: auto, tls: {{ verify: false }} }} }}\n\
                     routes: [{{ name: r{number}, upstream: u, plugins: [retry: {{}}] }}]\n"
                ),
            );
        }
        // An acceptor is kept by the same index, and none of these has one.
        let Kept { upstreams, addresses, wants_http1, plugins, https: _, callers: _ } = &workshop.kept;
        let counts = [upstreams.len(), addresses.len(), wants_http1.len(), plugins.len()];
        assert!(counts.iter().all(|count| (1..=FIRST_SWEEP).contains(count)), "{counts:?}");
    }

    fn workshop() -> Workshop {
        Workshop::new(Registry::builtin())
    }

    fn upstream(workshop: &Workshop, keys: &str) -> Snapshot {
        of(workshop, &format!("upstreams: {{ u: {{ {keys} }} }}\nroutes: [{{ upstream: u }}]\n"))
    }

    fn routes(workshop: &Workshop, routes: &[String]) -> Snapshot {
        let routes = routes.join(", ");
        of(workshop, &format!("upstreams: {{ u: {{ endpoints: [\"127.0.0.1:2\"] }} }}\nroutes: [{routes}]\n"))
    }

    fn of(workshop: &Workshop, yaml: &str) -> Snapshot {
        let yaml = format!("version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:1\" }} }}\n{yaml}");
        compile(&parse("x.yaml", &yaml, Path::new(".")).unwrap(), workshop)
            .unwrap_or_else(|it| panic!("{it}"))
    }

    /// The rules of a route's `retry`, which hold its budget.
    fn budget(route: &Route) -> &RetryPolicy {
        route.chain.retry().unwrap()
    }
}
