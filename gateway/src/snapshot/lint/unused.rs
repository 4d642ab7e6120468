//! Upstreams that nothing leads to.

use std::sync::Arc;

use vestibule_plugins::{Path, Problem};

use super::Subject;

/// An upstream that no route and no listener names.
pub fn unused(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    for (name, upstream) in subject.upstreams {
        // Whatever leads to an upstream holds it, so this needs no list of the keys that may name one.
        if Arc::strong_count(upstream) > 1 {
            continue;
        }
        let at = Path::root().key("upstreams").key(*name);
        warnings.push(
            Problem::new(at, format!("nothing leads to the upstream `{name}`"))
                .hint(format!("remove it, or let a route lead to it: `upstream: {name}`")),
        );
    }
}
