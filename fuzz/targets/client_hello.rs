//! Any bytes as the first ones of a connection: what is said of them holds for a part of them and with more behind them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::listener::client_hello::{LONGEST_WITH_RECORDS, Peek, peek};

fuzz_target!(|bytes: &[u8]| {
    let seen = peek(bytes);
    match &seen {
        Peek::Incomplete { needed } => {
            assert!(*needed > bytes.len(), "it waits for what is there already");
            assert!(*needed <= LONGEST_WITH_RECORDS, "it waits for more than its limit");
        }
        Peek::ClientHello { sni } => {
            let mut longer = bytes.to_vec();
            longer.extend_from_slice(b"more");
            assert_eq!(peek(&longer), seen, "what follows a hello changes it");
            if let Some(name) = sni {
                assert!(!name.is_empty() && !name.ends_with('.') && *name == name.to_ascii_lowercase());
            }
        }
        Peek::NotTls | Peek::Malformed(_) => {}
    }
    // A part either waits for more or says already what the whole does.
    let part = peek(&bytes[..bytes.len() / 2]);
    assert!(matches!(part, Peek::Incomplete { .. }) || part == seen, "{part:?} becomes {seen:?}");
});
