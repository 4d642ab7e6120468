//! Ports for listeners, each given once among all tests and test binaries of this machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Above 32767 the kernel takes ports for outgoing connections, which would collide with a listener that starts later.
const RANGE: std::ops::Range<u16> = 18_000..32_000;

struct Taken {
    ports: BTreeSet<u16>,
    /// Each file is locked until this process ends, which keeps the port from other test binaries.
    locks: Vec<File>,
}

static TAKEN: Mutex<Taken> = Mutex::new(Taken { ports: BTreeSet::new(), locks: Vec::new() });

/// A port that nobody listens on, and that no other test is given while this process runs. Left unused, connections to
/// it are refused.
pub fn free() -> u16 {
    let folder = std::env::temp_dir().join("vestibule-test-ports");
    fs::create_dir_all(&folder).unwrap();
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = fastrand::u16(RANGE);
        if taken.ports.contains(&port) {
            continue;
        }
        let lock = File::create(folder.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            taken.ports.insert(port);
            taken.locks.push(lock);
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_never_given_twice() {
        let ports: BTreeSet<u16> = (0..200).map(|_| free()).collect();
        assert_eq!(ports.len(), 200);
    }

    #[test]
    fn a_port_given_to_another_process_is_not_given_here() {
        let port = free();
        let other =
            File::open(std::env::temp_dir().join("vestibule-test-ports").join(port.to_string())).unwrap();
        assert!(other.try_lock().is_err());
    }
}
