//! Files whose mode lets others read a secret, or put another certificate or key in its place.

use vestibule_plugins::Problem;

use super::{Subject, Use};

/// A private key or its password that everyone may read, and anything of TLS that everyone may write.
#[cfg(unix)]
pub fn permissions(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    use std::os::unix::fs::PermissionsExt;

    for (at, file, usage) in subject.tls_files() {
        let path = subject.document.base().join(file);
        let Ok(found) = std::fs::metadata(&path) else { continue };
        // A pipe or a device is nobody's to keep.
        if !found.is_file() {
            continue;
        }
        let mode = found.permissions().mode() & 0o7777;
        let (file, path) = (file.display(), path.display());
        let (noun, good) = match usage {
            Use::PrivateKey => ("private key", "600"),
            Use::Password => ("password file", "600"),
            Use::Certificate => ("certificate", "644"),
            Use::Authorities => ("CA file", "644"),
        };
        let may = if mode & 0o002 != 0 {
            "may be replaced"
        } else if matches!(usage, Use::PrivateKey | Use::Password) && mode & 0o004 != 0 {
            "may be read"
        } else {
            continue;
        };
        let message =
            format!("the {noun} `{file}` {may} by every user of this system: its mode is {mode:04o}");
        warnings
            .push(Problem::new(at, message).hint(format!(
                "`chmod {good} {path}`, with the user that the gateway runs as for its owner"
            )));
    }
}

/// Other systems have no such modes.
#[cfg(not(unix))]
pub fn permissions(_: &Subject<'_>, _: &mut Vec<Problem>) {}
