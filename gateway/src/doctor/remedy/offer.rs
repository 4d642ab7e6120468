//! What is offered: TLS or none, its versions and ciphers, the protocol inside, and time.

use serde_yaml::Mapping;

use super::{Case, Plan};
use crate::doctor::place::Edit;
use crate::proxy::attempt::bare;
use crate::upstream::{Ciphers, Protocol, Settings, Version};

impl Case<'_> {
    pub(super) fn versions(&self, plan: &Plan) -> Vec<Plan> {
        let Some(((lowest, highest), _)) = plan.tls().map(|(settings, name)| (settings.versions, name))
        else {
            return Vec::new();
        };
        let other = |versions: (Version, Version), edits: Vec<Edit>, words: String| {
            plan.with(edits, words, |plan| plan.settings(|settings| settings.versions = versions))
        };
        let above = Version::ALL.into_iter().rev().filter(|version| *version > highest).map(|version| {
            let edits = match version {
                Version::Tls13 => self.places.remove("max_version", |tls| tls.max_version.is_some()),
                _ => self.places.set("max_version", version.text(), |tls| tls.max_version.is_some()),
            };
            other((lowest, version), edits, format!("offer up to TLS {}", version.text()))
        });
        let below = Version::ALL.into_iter().rev().filter(|version| *version < lowest).map(|version| {
            let edits = match version {
                Version::Tls12 => self.places.remove("min_version", |tls| tls.min_version.is_some()),
                _ => self.places.set("min_version", version.text(), |tls| tls.min_version.is_some()),
            };
            let weak = if version < Version::Tls12 {
                ": broken by today's measure, so better enable 1.2 at the upstream"
            } else {
                ""
            };
            other((version, highest), edits, format!("offer TLS {} too{weak}", version.text()))
        });
        let less = Version::ALL.into_iter().rev().filter(|version| (lowest..highest).contains(version)).map(
            |version| {
                let edits = self.places.set("max_version", version.text(), |tls| tls.max_version.is_some());
                other(
                    (lowest, version),
                    edits,
                    format!("offer TLS {} at most, which is what this upstream can bear", version.text()),
                )
            },
        );
        above.chain(below).chain(less).collect()
    }

    pub(super) fn other_ciphers(&self, plan: &Plan) -> Vec<Plan> {
        let ciphers = self.places.remove("ciphers", |tls| tls.ciphers.is_some());
        let curves = self.places.remove("curves", |tls| tls.curves.is_some());
        let mut plans = Vec::new();
        if !ciphers.is_empty() {
            plans.push(plan.with(
                ciphers.clone(),
                "drop `ciphers`, so that all usual ones are offered",
                |plan| {
                    plan.settings(|settings| settings.ciphers = Ciphers::default());
                },
            ));
        }
        if !curves.is_empty() {
            plans.push(plan.with(
                curves.clone(),
                "drop `curves`, so that all usual ones are offered",
                |plan| {
                    plan.settings(|settings| settings.curves = None);
                },
            ));
        }
        if !ciphers.is_empty() && !curves.is_empty() {
            let words = "drop `ciphers` and `curves`, so that all usual ones are offered";
            plans.push(plan.with([ciphers, curves].concat(), words, |plan| {
                plan.settings(|settings| (settings.ciphers, settings.curves) = (Ciphers::default(), None));
            }));
        }
        plans
    }

    pub(super) fn less_security(&self, plan: &Plan) -> Vec<Plan> {
        let levels = [1, 0].map(|level| {
            let list = format!("DEFAULT:@SECLEVEL={level}");
            let edits = self.places.set("ciphers", list.as_str(), |tls| tls.ciphers.is_some());
            let words =
                "accept weak keys and ciphers from this upstream: better renew its certificate and settings";
            plan.with(edits, words, |plan| {
                plan.settings(|settings| settings.ciphers = Ciphers { tls12: Some(list), tls13: None });
            })
        });
        levels.into()
    }

    pub(super) fn without_tls(&self, plan: &Plan) -> Vec<Plan> {
        let words = "drop `tls`, as this port speaks plain HTTP: whoever is between can read and change all of it, so better find the upstream's TLS port";
        let mut edits = self.places.remove_tls();
        let protocol = match plan.protocol {
            Protocol::H2 => Protocol::H2c,
            Protocol::Auto => Protocol::Http1,
            same => same,
        };
        if protocol != plan.protocol {
            edits.push(self.speaking(protocol));
        }
        vec![plan.with(edits, words, |plan| (plan.tls, plan.protocol) = (None, protocol))]
    }

    pub(super) fn with_tls(&self, plan: &Plan) -> Vec<Plan> {
        let mut edits = vec![Edit::Set(self.places.upstream().key("tls"), Mapping::new().into())];
        let protocol = if plan.protocol == Protocol::H2c { Protocol::H2 } else { plan.protocol };
        if protocol != plan.protocol {
            edits.push(self.speaking(protocol));
        }
        let settings = Settings { session_reuse: false, alpn: protocol.alpn(), ..Settings::default() };
        let identity = bare(&plan.host);
        vec![plan.with(edits, "speak TLS", |plan| {
            (plan.tls, plan.protocol) = (Some((settings, identity)), protocol);
        })]
    }

    fn speaking(&self, protocol: Protocol) -> Edit {
        let text = match protocol {
            Protocol::Http1 => "http/1.1",
            Protocol::H2 => "h2",
            Protocol::H2c => "h2c",
            Protocol::Auto => "auto",
        };
        Edit::Set(self.places.upstream().key("protocol"), text.into())
    }

    pub(super) fn more_time(&self, plan: &Plan) -> Vec<Plan> {
        let longer = self.timeout;
        if plan.limit.is_none_or(|limit| limit >= longer) {
            return Vec::new();
        }
        let text = match longer.subsec_millis() {
            0 => format!("{}s", longer.as_secs()),
            _ => format!("{}ms", longer.as_millis()),
        };
        let edits = vec![Edit::Set(self.places.upstream().key("connect_timeout"), text.as_str().into())];
        let words = format!("wait for {text}, which is enough now");
        vec![plan.with(edits, words, |plan| plan.limit = Some(longer))]
    }

    pub(super) fn protocols(&self, plan: &Plan) -> Vec<Plan> {
        let all = match plan.tls {
            Some(_) => [(Protocol::H2, "h2"), (Protocol::Http1, "http/1.1")],
            None => [(Protocol::H2c, "h2c"), (Protocol::Http1, "http/1.1")],
        };
        let others = all.into_iter().filter(|(protocol, _)| *protocol != plan.protocol);
        let plans = others.map(|(protocol, text)| {
            plan.with(vec![self.speaking(protocol)], format!("speak `{text}`"), |plan| {
                plan.protocol = protocol;
                plan.settings(|settings| settings.alpn = protocol.alpn());
            })
        });
        plans.collect()
    }
}
