//! `key_log`: files that hold what decrypts an upstream's traffic.

use vestibule_plugins::Problem;

use super::Subject;

/// Each `key_log` that is written.
pub fn key_log(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    warnings.extend(subject.tls_blocks().filter_map(|(at, tls)| {
        let file = tls.key_log.as_ref()?.display();
        let message = format!("who reads `{file}` reads all that is said to the upstream");
        Some(
            Problem::new(at.key("key_log"), message).hint("take `key_log` out once the traffic is looked at"),
        )
    }));
}
