//! `verify: off`: upstreams whose certificate nobody looks at.

use std::collections::BTreeMap;

use vestibule_plugins::{Path, Problem};

use super::{Subject, route_at};
use crate::config::VerifyConfig;

/// Each `verify: off` that a route goes by.
pub fn verify(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    let mut found: BTreeMap<Path, &str> = BTreeMap::new();
    for (index, route) in subject.config.routes.iter().enumerate() {
        let own = route.tls.as_ref().and_then(|tls| tls.verify.as_ref());
        let split = route.split.iter().flatten().map(|part| &part.upstream);
        for name in route.upstream.iter().chain(split) {
            let Some(tls) = subject.config.upstreams.get(name).and_then(|upstream| upstream.tls.as_ref())
            else {
                continue;
            };
            let (at, verify) = match own {
                Some(own) => (route_at(index), Some(own)),
                None => (Path::root().key("upstreams").key(name), tls.verify.as_ref()),
            };
            if verify == Some(&VerifyConfig::Off) {
                found.entry(at.key("tls").key("verify")).or_insert(name);
            }
        }
    }
    warnings.extend(found.into_iter().map(|(at, upstream)| {
        let message = format!("`verify: off`: anybody in between can pose as the upstream `{upstream}`");
        Problem::new(at, message).hint(
            "name the CA that signed its certificate, `verify: { ca: FILE }`, and the name in it where it is not the \
             SNI: `name: NAME`",
        )
    }));
}
