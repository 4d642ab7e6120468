//! `ip_filter`: lets clients pass by their address, or not.
//!
//! ```yaml
//! - ip_filter:
//!     allow: [10.0.0.0/8, "2001:db8::/32", 192.0.2.7]   # only these; absent: everybody
//!     deny: [10.66.0.0/16]                              # but these not
//! - ip_filter: { deny: 192.0.2.0/24 }
//! ```
//!
//! What is denied is denied, however exactly `allow` names it: an order of rules, or the longest prefix, would let an
//! entry that was added later open what an earlier one had closed. An entry of `allow` that lies within one of `deny` can
//! hence never take effect, and is refused at load. An IPv4 address that is mapped into IPv6 (`::ffff:192.0.2.7`) counts as
//! the IPv4 address, in the file as well as of a client. A client without an address, by a Unix socket say, does not pass.
//! The refusal is a 403.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::one_or_many::OneOrMany;
use crate::problem::{Path, Problem};
use crate::{Build, Hooks, Plugin, Refusal, RequestInfo, Setting, Verdict, Why};
use pingora_http::RequestHeader;

/// Refuses clients by their address.
pub struct IpFilter {
    /// `None`: everybody.
    allow: Option<Networks>,
    deny: Networks,
}

/// Which addresses clients may come from.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpFilterConfig {
    /// Addresses and networks that pass. Default: all.
    #[serde(default)]
    allow: Option<OneOrMany<String>>,
    /// Addresses and networks that do not pass, even where `allow` names them.
    #[serde(default)]
    deny: Option<OneOrMany<String>>,
}

impl Build for IpFilter {
    type Config = IpFilterConfig;

    fn build(config: IpFilterConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if config.allow.is_none() && config.deny.is_none() {
            let problem = Problem::new(Path::root(), "neither `allow` nor `deny` is given");
            return Err(vec![problem.hint("name networks, as in `allow: [10.0.0.0/8]`")]);
        }
        let allow = config.allow.as_ref().map(|list| networks(list, "allow", &mut problems));
        let deny = config.deny.as_ref().map_or_else(Vec::new, |list| networks(list, "deny", &mut problems));
        let typed = config.allow.iter().flat_map(|list| &list.0);
        for (index, (text, network)) in typed.zip(allow.iter().flatten()).enumerate() {
            let Some(network) = network else { continue };
            if let Some(closed) = deny.iter().flatten().find(|closed| closed.contains(network)) {
                problems.push(
                    Problem::new(
                        Path::root().key("allow").index(index),
                        format!("`{text}` lies within `{closed}`, which is denied, so it never passes"),
                    )
                    .hint("what is denied is denied: write `deny` without the addresses that may pass"),
                );
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { allow: allow.map(Networks::new), deny: Networks::new(deny) })
    }
}

impl Plugin for IpFilter {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, ..Hooks::default() }
    }

    fn request(&self, _: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        let refused = |detail: String| {
            Verdict::Refuse(Refusal { status: 403, headers: Vec::new(), why: Why::Forbidden, detail })
        };
        let Some(ip) = info.client_ip.map(|ip| ip.to_canonical()) else {
            return refused("the client has no address".to_owned());
        };
        if let Some(network) = self.deny.holding(ip) {
            return refused(format!("{ip} is in {network}, which is denied"));
        }
        match &self.allow {
            Some(allow) if allow.holding(ip).is_none() => refused(format!("{ip} is not allowed")),
            _ => Verdict::Continue,
        }
    }
}

/// Networks of which none holds another, in order, so that an address is found by halving.
struct Networks(Vec<IpNet>);

impl Networks {
    fn new(listed: Vec<Option<IpNet>>) -> Self {
        let mut networks = IpNet::aggregate(&listed.into_iter().flatten().collect());
        networks.sort_by_key(IpNet::network);
        Self(networks)
    }

    fn holding(&self, ip: IpAddr) -> Option<IpNet> {
        let behind = self.0.partition_point(|network| network.network() <= ip);
        self.0[..behind].last().copied().filter(|network| network.contains(&ip))
    }
}

/// In the places of the list; `None` where there is a problem.
fn networks(list: &OneOrMany<String>, key: &str, problems: &mut Vec<Problem>) -> Vec<Option<IpNet>> {
    let at = Path::root().key(key);
    if list.0.is_empty() {
        let problem = Problem::new(at.clone(), "the list is empty");
        problems.push(problem.hint(match key {
            "allow" => "leave `allow` out to let everybody pass, or name networks, as in `10.0.0.0/8`",
            _ => "leave `deny` out, or name networks, as in `10.0.0.0/8`",
        }));
    }
    let parsed = list.0.iter().enumerate();
    parsed
        .map(|(index, text)| {
            network(text).map_err(|problem| problems.push(problem.under(&at.index(index)))).ok()
        })
        .collect()
}

fn network(text: &str) -> Result<IpNet, Problem> {
    let shown = crate::decode::shown(text);
    let refused = || {
        let told = format!(
            "`{shown}` is neither an address nor a network, such as `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`"
        );
        Problem::new(Path::root(), told)
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_canonical().into());
    }
    let network = text.parse::<IpNet>().map_err(|_| refused())?;
    let exact = network.trunc();
    if network != exact {
        return Err(Problem::new(
            Path::root(),
            format!("`{shown}` is an address within `{exact}`, not a network"),
        )
        .hint(format!("write `{exact}` for the network, or `{}` for the address", network.addr())));
    }
    Ok(canonical(network))
}

/// A network of mapped IPv4 addresses as what it is.
fn canonical(network: IpNet) -> IpNet {
    let mapped = |network: &IpNet| -> Option<(Ipv4Addr, u8)> {
        let IpNet::V6(network) = network else { return None };
        Some((network.addr().to_ipv4_mapped()?, network.prefix_len().checked_sub(96)?))
    };
    mapped(&network).and_then(|(ip, length)| Ipv4Net::new(ip, length).ok()).map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, get, plugin, plugins_of_doc, refusal};

    /// Why a client from there is refused; `pass` where it is not.
    fn asked(config: &str, ip: &str) -> String {
        let plugin = plugin("ip_filter", config).unwrap();
        told(&*plugin, ip.parse().ok())
    }

    fn told(plugin: &dyn Plugin, client_ip: Option<IpAddr>) -> String {
        match plugin.request(&mut get("/"), &RequestInfo { client_ip, ..INFO }) {
            Verdict::Continue => "pass".to_owned(),
            Verdict::Refuse(Refusal { status: 403, why: Why::Forbidden, detail, .. }) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        let plugins = plugins_of_doc(include_str!("ip_filter.rs"));
        let pass = |ip: &str| plugins.iter().all(|it| told(&**it, ip.parse().ok()) == "pass");
        assert_eq!(["10.1.2.3", "10.66.1.1", "192.0.2.7"].map(pass), [true, false, false]);
    }

    #[test]
    fn what_is_denied_is_denied_and_what_is_not_allowed_does_not_pass() {
        let both =
            "{ allow: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32'], deny: [10.66.0.0/16, '2001:db8:6::/48'] }";
        for (config, ip, expected) in [
            (both, "10.1.2.3", "pass"),
            (both, "10.66.0.0", "10.66.0.0 is in 10.66.0.0/16, which is denied"),
            (both, "10.66.255.255", "10.66.255.255 is in 10.66.0.0/16, which is denied"),
            (both, "10.67.0.0", "pass"),
            (both, "192.0.2.7", "pass"),
            (both, "192.0.2.8", "192.0.2.8 is not allowed"),
            (both, "2001:db8::1", "pass"),
            (both, "2001:db8:6::1", "2001:db8:6::1 is in 2001:db8:6::/48, which is denied"),
            (both, "2001:db9::1", "2001:db9::1 is not allowed"),
            (both, "", "the client has no address"),
            ("{ deny: 192.0.2.0/24 }", "192.0.2.1", "192.0.2.1 is in 192.0.2.0/24, which is denied"),
            ("{ deny: 192.0.2.0/24 }", "10.0.0.1", "pass"),
            ("{ deny: 192.0.2.0/24 }", "", "the client has no address"),
            ("{ allow: 0.0.0.0/0 }", "10.0.0.1", "pass"),
            ("{ allow: 0.0.0.0/0 }", "::1", "::1 is not allowed"),
            // One holds the other, and neighbours make one.
            ("{ allow: [10.0.0.0/8, 10.1.0.0/16] }", "10.9.0.1", "pass"),
            ("{ allow: [10.0.0.0/9, 10.128.0.0/9] }", "10.255.0.1", "pass"),
        ] {
            assert_eq!(asked(config, ip), expected, "{ip} by {config}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        for (config, ip, expected) in [
            ("{ allow: 10.0.0.0/8 }", "::ffff:10.0.0.1", "pass"),
            ("{ deny: 10.0.0.0/8 }", "::ffff:10.0.0.1", "10.0.0.1 is in 10.0.0.0/8, which is denied"),
            ("{ deny: '::ffff:10.0.0.0/104' }", "10.0.0.1", "10.0.0.1 is in 10.0.0.0/8, which is denied"),
            ("{ allow: '::ffff:192.0.2.7' }", "192.0.2.7", "pass"),
        ] {
            assert_eq!(asked(config, ip), expected, "{ip} by {config}");
        }
    }

    #[test]
    fn every_bad_entry_is_told() {
        assert_eq!(
            refusal(
                "ip_filter",
                "{ allow: [10.0.0.1/8, ten, 10.66.1.0/24], deny: [10.66.0.0/16, 10.0.0.0/33] }"
            ),
            "allow[0]: `10.0.0.1/8` is an address within `10.0.0.0/8`, not a network (write `10.0.0.0/8` for the \
             network, or `10.0.0.1` for the address)\n\
             allow[1]: `ten` is neither an address nor a network, such as `192.0.2.7`, `10.0.0.0/8` or \
             `2001:db8::/32`\n\
             deny[1]: `10.0.0.0/33` is neither an address nor a network, such as `192.0.2.7`, `10.0.0.0/8` or \
             `2001:db8::/32`\n\
             allow[2]: `10.66.1.0/24` lies within `10.66.0.0/16`, which is denied, so it never passes (what is denied \
             is denied: write `deny` without the addresses that may pass)"
        );
        for (config, told) in [
            ("{}", "neither `allow` nor `deny` is given"),
            ("{ allow: [] }", "allow: the list is empty"),
            ("{ alow: 10.0.0.1 }", "unknown key `alow`"),
        ] {
            assert!(refusal("ip_filter", config).contains(told), "{}", refusal("ip_filter", config));
        }
    }

    /// Against the plain specification, by random networks and addresses of a narrow range.
    #[test]
    fn a_random_list_is_looked_up_as_it_is_written() {
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let mut list = Vec::new();
            for _ in 0..random(12) {
                let ip = Ipv4Addr::from(0x0a00_0000 | u32::try_from(random(256)).unwrap());
                list.push(IpNet::new(ip.into(), 24 + u8::try_from(random(9)).unwrap()).unwrap().trunc());
            }
            let networks = Networks::new(list.iter().copied().map(Some).collect());
            for last in 0..=255 {
                let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
                let expected = list.iter().any(|network| network.contains(&ip));
                assert_eq!(networks.holding(ip).is_some(), expected, "{ip} in {list:?}");
            }
        }
    }
}
